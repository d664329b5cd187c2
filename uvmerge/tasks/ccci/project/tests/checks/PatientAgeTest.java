package checks;

import java.time.LocalDate;

import clinic.dto.PatientAge;
import clinic.service.Patients;

/** The hole {@code patient-age}. */
public class PatientAgeTest {
    public void test() {
        Patients patients = new Patients(Clinic.rooms(), Clinic.wards());
        PatientAge first = patients.age(Clinic.EVA);
        Check.same("Holm", first.getFamilyName());
        Check.same(LocalDate.of(1980, 2, 29), first.getBorn());
        PatientAge second = patients.age(Clinic.TOM);
        Check.same("Berg", second.getFamilyName());
        Check.same(LocalDate.of(2015, 11, 30), second.getBorn());
    }
}
