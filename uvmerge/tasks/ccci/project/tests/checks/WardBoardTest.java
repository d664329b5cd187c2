package checks;

import java.time.LocalDate;

import clinic.dto.BoardRow;
import clinic.service.Wards;

/** The hole {@code ward-board}. */
public class WardBoardTest {
    public void test() {
        Wards wards = new Wards(
                Clinic.rooms(), Clinic.wards(), Clinic.secretaries(), Clinic.practitioners());
        BoardRow first = wards.board(Clinic.OVER);
        Check.same("Holm", first.getPatientFamilyName());
        Check.same("surgery", first.getStationTitle());
        Check.same("Dr Nyl", first.getAttendingDisplayName());
        Check.same(LocalDate.of(2024, 3, 1), first.getAdmittedOn());
        BoardRow second = wards.board(Clinic.OPEN);
        Check.same("Berg", second.getPatientFamilyName());
        Check.same("children", second.getStationTitle());
        Check.same("Dr Moe", second.getAttendingDisplayName());
        Check.same(LocalDate.of(2024, 3, 2), second.getAdmittedOn());
    }
}
