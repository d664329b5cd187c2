package checks;

import clinic.dto.MessageHeader;
import clinic.service.Appointments;

/** The hole {@code message-header}. */
public class MessageHeaderTest {
    public void test() {
        Appointments appointments = new Appointments(
                Clinic.wards(), Clinic.rooms(), Clinic.secretaries(), Clinic.practitioners());
        MessageHeader first = appointments.header(Clinic.EARLY);
        Check.same(1L, first.getId());
        Check.same("CLN-NORTH", first.getSender());
        Check.same("2.5.1", first.getVersion());
        MessageHeader second = appointments.header(Clinic.LATE);
        Check.same(2L, second.getId());
        Check.same("CLN-NORTH", second.getSender());
        Check.same("2.5.1", second.getVersion());
    }
}
