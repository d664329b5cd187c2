package checks;

import clinic.dto.LabValue;
import clinic.service.Laboratory;

/** The hole {@code lab-value}. */
public class LabValueTest {
    public void test() {
        Laboratory laboratory = new Laboratory(
                Clinic.secretaries(), Clinic.practitioners(), Clinic.assays());
        LabValue first = laboratory.value(Clinic.LOW);
        Check.same(1L, first.getId());
        Check.same(4.25, first.getValue());
        LabValue second = laboratory.value(Clinic.HIGH);
        Check.same(2L, second.getId());
        Check.same(139.5, second.getValue());
    }
}
