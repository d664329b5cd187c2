package checks;

import clinic.dto.PatientSex;
import clinic.dto.Sex;
import clinic.service.Patients;

/** The hole {@code patient-sex}. */
public class PatientSexTest {
    public void test() {
        Patients patients = new Patients(Clinic.rooms(), Clinic.wards());
        PatientSex first = patients.sex(Clinic.EVA);
        Check.same("Holm", first.getFamilyName());
        Check.same(Sex.FEMALE, first.getSex());
        PatientSex second = patients.sex(Clinic.NEW);
        Check.same("Dahl", second.getFamilyName());
        Check.same(Sex.OTHER, second.getSex());
    }
}
