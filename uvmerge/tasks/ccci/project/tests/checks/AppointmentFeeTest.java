package checks;

import clinic.dto.AppointmentFee;
import clinic.service.Appointments;
import transfer.Money;

/** The hole {@code appointment-fee}. */
public class AppointmentFeeTest {
    public void test() {
        Appointments appointments = new Appointments(
                Clinic.wards(), Clinic.rooms(), Clinic.secretaries(), Clinic.practitioners());
        AppointmentFee first = appointments.fee(Clinic.EARLY);
        Check.same(1L, first.getId());
        Check.same("Holm", first.getPatientFamilyName());
        Check.same(Money.ofMinor(12050), first.getFee());
        AppointmentFee second = appointments.fee(Clinic.LATE);
        Check.same(2L, second.getId());
        Check.same("Berg", second.getPatientFamilyName());
        Check.same(Money.ofMinor(900), second.getFee());
    }
}
