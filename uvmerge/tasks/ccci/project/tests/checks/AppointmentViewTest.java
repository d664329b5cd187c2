package checks;

import java.time.Instant;

import clinic.dto.AppointmentView;
import clinic.service.Appointments;

/** The hole {@code appointment-view}. */
public class AppointmentViewTest {
    public void test() {
        Appointments appointments = new Appointments(
                Clinic.wards(), Clinic.rooms(), Clinic.secretaries(), Clinic.practitioners());
        AppointmentView first = appointments.view(Clinic.EARLY);
        Check.same(1L, first.getId());
        Check.same("Dr Nyl", first.getWithDisplayName());
        Check.same("south room", first.getPlaceTitle());
        Check.same(Instant.ofEpochSecond(946771200L), first.getStartsAt());
        AppointmentView second = appointments.view(Clinic.LATE);
        Check.same(2L, second.getId());
        Check.same("Dr Moe", second.getWithDisplayName());
        Check.same("north room", second.getPlaceTitle());
        Check.same(Instant.ofEpochSecond(1716684800L), second.getStartsAt());
    }
}
