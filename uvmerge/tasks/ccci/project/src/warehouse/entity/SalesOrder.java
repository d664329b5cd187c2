package warehouse.entity;

import java.util.ArrayList;
import java.util.List;

/** What a customer ordered. */
public class SalesOrder {
    private long id;
    private String number;
    private Customer customer;
    private int placedOn;
    private String status;
    private List<OrderLine> lines = new ArrayList<>();
    private String note;

    public SalesOrder() {
    }

    public SalesOrder(
            long id, String number, Customer customer, int placedOn, String status,
            List<OrderLine> lines, String note) {
        this.id = id;
        this.number = number;
        this.customer = customer;
        this.placedOn = placedOn;
        this.status = status;
        this.lines = lines;
        this.note = note;
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

    public Customer getCustomer() {
        return customer;
    }

    public void setCustomer(Customer customer) {
        this.customer = customer;
    }

    public int getPlacedOn() {
        return placedOn;
    }

    public void setPlacedOn(int placedOn) {
        this.placedOn = placedOn;
    }

    public String getStatus() {
        return status;
    }

    public void setStatus(String status) {
        this.status = status;
    }

    public List<OrderLine> getLines() {
        return lines;
    }

    public void setLines(List<OrderLine> lines) {
        this.lines = lines;
    }

    public String getNote() {
        return note;
    }

    public void setNote(String note) {
        this.note = note;
    }
}
