package clinic.dto;

import transfer.Money;

/** A line of an invoice on the screen. */
public class InvoiceRow {
    private String text;
    private int units;
    private Money price;

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

    public Money getPrice() {
        return price;
    }

    public void setPrice(Money price) {
        this.price = price;
    }
}
