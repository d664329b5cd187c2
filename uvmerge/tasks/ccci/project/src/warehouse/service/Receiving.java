package warehouse.service;

import java.util.Map;

import transfer.Dates;
import warehouse.dto.ReceiptPlace;
import warehouse.dto.ReceiptView;
import warehouse.entity.Area;
import warehouse.entity.Carrier;
import warehouse.entity.Location;
import warehouse.entity.Receipt;
import warehouse.entity.Supplier;

/** Goods that came in. */
public class Receiving {
    private final Map<Long, Carrier> carriers;
    private final Map<Long, Supplier> suppliers;
    private final Map<Long, Location> locations;
    private final Map<Long, Area> areas;

    public Receiving(
            Map<Long, Carrier> carriers, Map<Long, Supplier> suppliers,
            Map<Long, Location> locations, Map<Long, Area> areas) {
        this.carriers = carriers;
        this.suppliers = suppliers;
        this.locations = locations;
        this.areas = areas;
    }

    /** Whether nothing can be looked up. */
    public boolean isEmpty() {
        return carriers.isEmpty() && suppliers.isEmpty() && locations.isEmpty() && areas.isEmpty();
    }

    /** A receipt on the screen. */
    public ReceiptView view(Receipt receipt) {
        ReceiptView view = new ReceiptView();
        view.setId(receipt.getId());
        view.setPartnerName(suppliers.get(receipt.getPartner()).getName());
        view.setReceivedOn(Dates.fromCompact(receipt.getReceivedOn()));
        view.setQuantity(receipt.getQuantity());
        return view;
    }

    /** Where goods were put down. */
    public ReceiptPlace place(Receipt receipt) {
        ReceiptPlace place = new ReceiptPlace();
        place.setId(receipt.getId());
        place.setDockCode(locations.get(receipt.getDock()).getCode());
        place.setQuantity(receipt.getQuantity());
        return place;
    }
}
