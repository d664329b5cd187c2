package checks;

import clinic.dto.InvoiceView;
import clinic.service.Billing;
import transfer.Money;

/** The hole {@code invoice-view}. */
public class InvoiceViewTest {
    public void test() {
        Billing billing = new Billing(Clinic.employers(), Clinic.insurers());
        InvoiceView view = billing.view(Clinic.LONG);
        Check.same("IN-1", view.getNumber());
        Check.same(2, view.getItems().size());
        Check.same("visit", view.getItems().get(0).getText());
        Check.same(2, view.getItems().get(0).getUnits());
        Check.same(Money.ofMinor(12_050), view.getItems().get(0).getPrice());
        Check.same("drug", view.getItems().get(1).getText());
        Check.same(1, view.getItems().get(1).getUnits());
        Check.same(Money.ofMinor(20_910), view.getItems().get(1).getPrice());
        InvoiceView other = billing.view(Clinic.SHORT);
        Check.same("IN-2", other.getNumber());
        Check.same(1, other.getItems().size());
        Check.same("form", other.getItems().get(0).getText());
    }
}
