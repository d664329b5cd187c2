package checks;

import clinic.dto.ClaimHeader;
import clinic.service.Billing;

/** The hole {@code claim-header}. */
public class ClaimHeaderTest {
    public void test() {
        Billing billing = new Billing(Clinic.employers(), Clinic.insurers());
        ClaimHeader first = billing.claim(Clinic.LONG);
        Check.same("IN-1", first.getNumber());
        Check.same("UB-04", first.getForm());
        Check.same("7-330-1", first.getAccount());
        ClaimHeader second = billing.claim(Clinic.SHORT);
        Check.same("IN-2", second.getNumber());
        Check.same("UB-04", second.getForm());
        Check.same("7-330-1", second.getAccount());
    }
}
