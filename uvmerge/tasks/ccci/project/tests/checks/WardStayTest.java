package checks;

import java.time.LocalDate;

import clinic.dto.Stay;
import clinic.service.Wards;

/** The hole {@code ward-stay}. */
public class WardStayTest {
    public void test() {
        Wards wards = new Wards(
                Clinic.rooms(), Clinic.wards(), Clinic.secretaries(), Clinic.practitioners());
        Stay first = wards.stay(Clinic.OVER);
        Check.same(1L, first.getId());
        Check.same(LocalDate.of(2024, 3, 1), first.getAdmittedOn());
        Check.same(LocalDate.of(2024, 3, 9), first.getDischargedOn());
        Stay second = wards.stay(Clinic.OPEN);
        Check.same(2L, second.getId());
        Check.same(LocalDate.of(2024, 3, 2), second.getAdmittedOn());
        Check.same(null, second.getDischargedOn());
    }
}
