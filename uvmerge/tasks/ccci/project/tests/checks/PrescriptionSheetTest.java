package checks;

import clinic.dto.PrescriptionSheet;
import clinic.service.Medication;

/** The hole {@code prescription-sheet}. */
public class PrescriptionSheetTest {
    public void test() {
        Medication medication = new Medication(Clinic.secretaries(), Clinic.practitioners());
        PrescriptionSheet first = medication.sheet(Clinic.DROPS);
        Check.same("Holm", first.getPatientFamilyName());
        Check.same("Iron", first.getDrugName());
        Check.same("drops", first.getDrugForm());
        Check.same(3, first.getDose());
        PrescriptionSheet second = medication.sheet(Clinic.TABLET);
        Check.same("Berg", second.getPatientFamilyName());
        Check.same("Zinc", second.getDrugName());
        Check.same("tablet", second.getDrugForm());
        Check.same(1, second.getDose());
    }
}
