package clinic.dto;

import java.util.ArrayList;
import java.util.List;

/** An invoice on the screen. */
public class InvoiceView {
    private String number;
    private List<InvoiceRow> items = new ArrayList<>();

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public List<InvoiceRow> getItems() {
        return items;
    }

    public void setItems(List<InvoiceRow> items) {
        this.items = items;
    }
}
