package checks;

import clinic.dto.PatientPhone;
import clinic.service.Patients;

/** The hole {@code patient-phone}. */
public class PatientPhoneTest {
    public void test() {
        Patients patients = new Patients(Clinic.rooms(), Clinic.wards());
        PatientPhone first = patients.phone(Clinic.EVA);
        Check.same("Holm", first.getFamilyName());
        Check.same("555-1", first.getPhone());
        PatientPhone second = patients.phone(Clinic.NEW);
        Check.same("Dahl", second.getFamilyName());
        Check.same("ask at desk", second.getPhone());
    }
}
