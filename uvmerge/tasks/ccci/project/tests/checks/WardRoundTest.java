package checks;

import java.util.List;

import clinic.dto.RoundRow;
import clinic.service.Wards;

/** The hole {@code ward-round}. */
public class WardRoundTest {
    public void test() {
        Wards wards = new Wards(
                Clinic.rooms(), Clinic.wards(), Clinic.secretaries(), Clinic.practitioners());
        List<RoundRow> rows = wards.round(List.of(Clinic.OVER, Clinic.OPEN));
        Check.same(2, rows.size());
        Check.same("Holm", rows.get(0).getPatientFamilyName());
        Check.same("fall", rows.get(0).getReason());
        Check.same("Berg", rows.get(1).getPatientFamilyName());
        Check.same("fever", rows.get(1).getReason());
        Check.same(List.of(), wards.round(List.of()));
    }
}
