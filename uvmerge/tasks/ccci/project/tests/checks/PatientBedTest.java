package checks;

import clinic.dto.PatientBed;
import clinic.service.Patients;

/** The hole {@code patient-bed}. */
public class PatientBedTest {
    public void test() {
        Patients patients = new Patients(Clinic.rooms(), Clinic.wards());
        PatientBed first = patients.bed(Clinic.EVA);
        Check.same("Holm", first.getFamilyName());
        Check.same("children", first.getWardTitle());
        Check.same(5, first.getWardFloor());
        PatientBed second = patients.bed(Clinic.TOM);
        Check.same("Berg", second.getFamilyName());
        Check.same("surgery", second.getWardTitle());
        Check.same(3, second.getWardFloor());
    }
}
