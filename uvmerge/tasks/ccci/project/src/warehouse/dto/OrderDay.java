package warehouse.dto;

import java.time.LocalDate;

/** When an order was placed. */
public class OrderDay {
    private String number;
    private LocalDate placedOn;

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public LocalDate getPlacedOn() {
        return placedOn;
    }

    public void setPlacedOn(LocalDate placedOn) {
        this.placedOn = placedOn;
    }
}
