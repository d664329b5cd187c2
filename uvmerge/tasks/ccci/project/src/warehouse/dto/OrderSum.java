package warehouse.dto;

import transfer.Money;

/** What an order costs. */
public class OrderSum {
    private String number;
    private Money total;

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public Money getTotal() {
        return total;
    }

    public void setTotal(Money total) {
        this.total = total;
    }
}
