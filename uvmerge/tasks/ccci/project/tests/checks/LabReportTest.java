package checks;

import java.time.LocalDate;

import clinic.dto.LabReport;
import clinic.service.Laboratory;

/** The hole {@code lab-report}. */
public class LabReportTest {
    public void test() {
        Laboratory laboratory = new Laboratory(
                Clinic.secretaries(), Clinic.practitioners(), Clinic.assays());
        LabReport first = laboratory.report(Clinic.LOW);
        Check.same("Dr Nyl", first.getSampledByDisplayName());
        Check.same("potassium", first.getTestTitle());
        Check.same("mmol/l", first.getTestUnit());
        Check.same(LocalDate.of(2024, 5, 5), first.getSampledOn());
        LabReport second = laboratory.report(Clinic.HIGH);
        Check.same("Dr Moe", second.getSampledByDisplayName());
        Check.same("sodium", second.getTestTitle());
        Check.same("mEq/l", second.getTestUnit());
        Check.same(LocalDate.of(2024, 5, 6), second.getSampledOn());
    }
}
