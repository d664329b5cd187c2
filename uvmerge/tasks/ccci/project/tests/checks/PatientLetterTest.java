package checks;

import clinic.dto.PatientLetter;
import clinic.service.Patients;

/** The hole {@code patient-letter}. */
public class PatientLetterTest {
    public void test() {
        Patients patients = new Patients(Clinic.rooms(), Clinic.wards());
        PatientLetter first = patients.letter(Clinic.EVA);
        Check.same("Holm", first.getFamilyName());
        Check.same("Hill 1", first.getContactResidenceStreet());
        Check.same("Oslo", first.getContactResidenceCity());
        PatientLetter second = patients.letter(Clinic.TOM);
        Check.same("Berg", second.getFamilyName());
        Check.same("Dale 2", second.getContactResidenceStreet());
        Check.same("Bergen", second.getContactResidenceCity());
    }
}
