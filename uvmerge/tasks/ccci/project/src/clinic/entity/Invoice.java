package clinic.entity;

import java.util.ArrayList;
import java.util.List;

/** What is to be paid. */
public class Invoice {
    private long id;
    private String number;
    private long payer;
    private long amount;
    private int dueOn;
    private List<InvoiceItem> items = new ArrayList<>();

    public Invoice() {
    }

    public Invoice(
            long id, String number, long payer, long amount, int dueOn, List<InvoiceItem> items) {
        this.id = id;
        this.number = number;
        this.payer = payer;
        this.amount = amount;
        this.dueOn = dueOn;
        this.items = items;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public long getPayer() {
        return payer;
    }

    public void setPayer(long payer) {
        this.payer = payer;
    }

    public long getAmount() {
        return amount;
    }

    public void setAmount(long amount) {
        this.amount = amount;
    }

    public int getDueOn() {
        return dueOn;
    }

    public void setDueOn(int dueOn) {
        this.dueOn = dueOn;
    }

    public List<InvoiceItem> getItems() {
        return items;
    }

    public void setItems(List<InvoiceItem> items) {
        this.items = items;
    }
}
