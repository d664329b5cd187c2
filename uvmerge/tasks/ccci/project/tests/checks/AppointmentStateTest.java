package checks;

import java.time.Instant;

import clinic.dto.AppointmentState;
import clinic.dto.AppointmentStatus;
import clinic.service.Appointments;

/** The hole {@code appointment-state}. */
public class AppointmentStateTest {
    public void test() {
        Appointments appointments = new Appointments(
                Clinic.wards(), Clinic.rooms(), Clinic.secretaries(), Clinic.practitioners());
        AppointmentState first = appointments.state(Clinic.EARLY);
        Check.same(1L, first.getId());
        Check.same(AppointmentStatus.ARRIVED, first.getState());
        Check.same(Instant.ofEpochSecond(946771200L), first.getStartsAt());
        AppointmentState second = appointments.state(Clinic.LATE);
        Check.same(2L, second.getId());
        Check.same(AppointmentStatus.MISSED, second.getState());
        Check.same(Instant.ofEpochSecond(1716684800L), second.getStartsAt());
    }
}
