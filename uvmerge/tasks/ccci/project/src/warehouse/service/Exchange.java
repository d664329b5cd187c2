package warehouse.service;

import java.util.Map;

import warehouse.dto.EdiHeader;
import warehouse.dto.ExportRow;
import warehouse.dto.ReceiptRow;
import warehouse.entity.Carrier;
import warehouse.entity.Receipt;
import warehouse.entity.SalesOrder;
import warehouse.entity.Supplier;

/** What is sent to other systems. */
public class Exchange {
    private final Map<Long, Carrier> carriers;
    private final Map<Long, Supplier> suppliers;

    public Exchange(Map<Long, Carrier> carriers, Map<Long, Supplier> suppliers) {
        this.carriers = carriers;
        this.suppliers = suppliers;
    }

    /** How many companies can be looked up. */
    public int known() {
        return carriers.size() + suppliers.size();
    }

    /** The first segment of a message about an order. */
    public EdiHeader header(SalesOrder order) {
        EdiHeader header = new EdiHeader();
        header.setNumber(order.getNumber());
        header.setChannel("EDI-7");
        header.setVersion("D96A");
        return header;
    }

    /** An order as the shop reads it; its {@code source} is always {@code DEPOT-WEST}. */
    public ExportRow row(SalesOrder order) {
        ExportRow row = new ExportRow();
        row.setNumber(order.getNumber());
        row.setSource("DEPOT-WEST");
        row.setNote(order.getNote());
        return row;
    }

    /** A receipt as the accountants read it. */
    public ReceiptRow row(Receipt receipt) {
        ReceiptRow row = new ReceiptRow();
        row.setId(receipt.getId());
        row.setPartnerName(suppliers.get(receipt.getPartner()).getName());
        row.setLedger("GR-4100");
        row.setQuantity(receipt.getQuantity());
        return row;
    }
}
