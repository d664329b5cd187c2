package checks;

import clinic.dto.PatientCard;
import clinic.service.Patients;

/** The hole {@code patient-card}. */
public class PatientCardTest {
    public void test() {
        Patients patients = new Patients(Clinic.rooms(), Clinic.wards());
        PatientCard first = patients.card(Clinic.EVA);
        Check.same("Eva", first.getGivenName());
        Check.same("Holm", first.getFamilyName());
        Check.same("555-1", first.getContactPhone());
        Check.same("eva@x.example", first.getContactEmail());
        PatientCard second = patients.card(Clinic.TOM);
        Check.same("Tom", second.getGivenName());
        Check.same("Berg", second.getFamilyName());
        Check.same("555-2", second.getContactPhone());
        Check.same("tom@y.example", second.getContactEmail());
    }
}
