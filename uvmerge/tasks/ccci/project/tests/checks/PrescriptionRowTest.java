package checks;

import clinic.dto.PrescriptionRow;
import clinic.service.Medication;

/** The hole {@code prescription-row}. */
public class PrescriptionRowTest {
    public void test() {
        Medication medication = new Medication(Clinic.secretaries(), Clinic.practitioners());
        PrescriptionRow first = medication.row(Clinic.DROPS);
        Check.same(1L, first.getId());
        Check.same("Iron", first.getDrugName());
        Check.same("RX-12", first.getRegister());
        Check.same(28, first.getValidDays());
        PrescriptionRow second = medication.row(Clinic.TABLET);
        Check.same(2L, second.getId());
        Check.same("Zinc", second.getDrugName());
        Check.same("RX-12", second.getRegister());
        Check.same(28, second.getValidDays());
    }
}
