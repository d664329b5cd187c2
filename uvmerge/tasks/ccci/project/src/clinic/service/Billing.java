package clinic.service;

import java.util.Map;

import clinic.dto.ClaimHeader;
import clinic.dto.InvoiceDemand;
import clinic.dto.InvoiceRow;
import clinic.dto.InvoiceView;
import clinic.entity.Employer;
import clinic.entity.Insurer;
import clinic.entity.Invoice;
import clinic.entity.InvoiceItem;
import transfer.Dates;
import transfer.Money;

/** What is to be paid. */
public class Billing {
    private final Map<Long, Employer> employers;
    private final Map<Long, Insurer> insurers;

    public Billing(Map<Long, Employer> employers, Map<Long, Insurer> insurers) {
        this.employers = employers;
        this.insurers = insurers;
    }

    /** How many companies can be looked up. */
    public int known() {
        return employers.size() + insurers.size();
    }

    /** An invoice with all of its lines. */
    public InvoiceView view(Invoice invoice) {
        InvoiceView view = new InvoiceView();
        view.setNumber(invoice.getNumber());
        for (InvoiceItem item : invoice.getItems()) {
            InvoiceRow row = new InvoiceRow();
            row.setText(item.getText());
            row.setUnits(item.getUnits());
            row.setPrice(Money.ofMinor(item.getPrice()));
            view.getItems().add(row);
        }
        return view;
    }

    /** Who has to pay, how much, until when. */
    public InvoiceDemand demand(Invoice invoice) {
        InvoiceDemand demand = new InvoiceDemand();
        demand.setNumber(invoice.getNumber());
        demand.setPayerName(insurers.get(invoice.getPayer()).getName());
        demand.setAmount(Money.ofMinor(invoice.getAmount()));
        demand.setDueOn(Dates.fromCompact(invoice.getDueOn()));
        return demand;
    }

    /**
     * The head of a claim.
     *
     * <p>The insurers' portal books every claim of this house on the {@code account}
     * {@code 7-330-1}, whatever the invoice is about.
     */
    public ClaimHeader claim(Invoice invoice) {
        ClaimHeader claim = new ClaimHeader();
        claim.setNumber(invoice.getNumber());
        claim.setForm("UB-04");
        claim.setAccount("7-330-1");
        return claim;
    }
}
