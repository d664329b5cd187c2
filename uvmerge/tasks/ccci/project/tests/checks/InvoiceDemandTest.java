package checks;

import java.time.LocalDate;

import clinic.dto.InvoiceDemand;
import clinic.service.Billing;
import transfer.Money;

/** The hole {@code invoice-demand}. */
public class InvoiceDemandTest {
    public void test() {
        Billing billing = new Billing(Clinic.employers(), Clinic.insurers());
        InvoiceDemand first = billing.demand(Clinic.LONG);
        Check.same("IN-1", first.getNumber());
        Check.same("Union", first.getPayerName());
        Check.same(Money.ofMinor(45010), first.getAmount());
        Check.same(LocalDate.of(2024, 9, 30), first.getDueOn());
        InvoiceDemand second = billing.demand(Clinic.SHORT);
        Check.same("IN-2", second.getNumber());
        Check.same("Mutual", second.getPayerName());
        Check.same(Money.ofMinor(99), second.getAmount());
        Check.same(LocalDate.of(2024, 12, 31), second.getDueOn());
    }
}
