package clinic.dto;

import java.time.LocalDate;

import transfer.Money;

/** Who has to pay, how much, until when. */
public class InvoiceDemand {
    private String number;
    private String payerName;
    private Money amount;
    private LocalDate dueOn;

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public String getPayerName() {
        return payerName;
    }

    public void setPayerName(String payerName) {
        this.payerName = payerName;
    }

    public Money getAmount() {
        return amount;
    }

    public void setAmount(Money amount) {
        this.amount = amount;
    }

    public LocalDate getDueOn() {
        return dueOn;
    }

    public void setDueOn(LocalDate dueOn) {
        this.dueOn = dueOn;
    }
}
