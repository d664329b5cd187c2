package checks;

import clinic.dto.PrescriptionIssue;
import clinic.service.Medication;

/** The hole {@code prescription-issue}. */
public class PrescriptionIssueTest {
    public void test() {
        Medication medication = new Medication(Clinic.secretaries(), Clinic.practitioners());
        PrescriptionIssue first = medication.issue(Clinic.DROPS);
        Check.same("Dr Moe", first.getIssuedByDisplayName());
        Check.same("heart", first.getIssuedBySpecialty());
        Check.same("Iron", first.getDrugName());
        PrescriptionIssue second = medication.issue(Clinic.TABLET);
        Check.same("Dr Nyl", second.getIssuedByDisplayName());
        Check.same("skin", second.getIssuedBySpecialty());
        Check.same("Zinc", second.getDrugName());
    }
}
