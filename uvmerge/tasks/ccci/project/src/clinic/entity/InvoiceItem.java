package clinic.entity;

/** One line of an invoice. */
public class InvoiceItem {
    private long id;
    private String text;
    private int units;
    private long price;

    public InvoiceItem() {
    }

    public InvoiceItem(long id, String text, int units, long price) {
        this.id = id;
        this.text = text;
        this.units = units;
        this.price = price;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getText() {
        return text;
    }

    public void setText(String text) {
        this.text = text;
    }

    public int getUnits() {
        return units;
    }

    public void setUnits(int units) {
        this.units = units;
    }

    public long getPrice() {
        return price;
    }

    public void setPrice(long price) {
        this.price = price;
    }
}
