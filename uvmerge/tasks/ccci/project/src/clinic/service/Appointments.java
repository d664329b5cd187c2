package clinic.service;

import java.util.Map;

import clinic.dto.AppointmentFee;
import clinic.dto.AppointmentState;
import clinic.dto.AppointmentStatus;
import clinic.dto.AppointmentView;
import clinic.dto.MessageHeader;
import clinic.entity.Appointment;
import clinic.entity.Practitioner;
import clinic.entity.Room;
import clinic.entity.Secretary;
import clinic.entity.Ward;
import transfer.Codes;
import transfer.Dates;
import transfer.Money;

/** Who meets whom, when. */
public class Appointments {
    private final Map<Long, Ward> wards;
    private final Map<Long, Room> rooms;
    private final Map<Long, Secretary> secretaries;
    private final Map<Long, Practitioner> practitioners;

    public Appointments(
            Map<Long, Ward> wards, Map<Long, Room> rooms, Map<Long, Secretary> secretaries,
            Map<Long, Practitioner> practitioners) {
        this.wards = wards;
        this.rooms = rooms;
        this.secretaries = secretaries;
        this.practitioners = practitioners;
    }

    /** How much can be looked up. */
    public int known() {
        return wards.size() + rooms.size() + secretaries.size() + practitioners.size();
    }

    /** How far an appointment is. */
    public AppointmentState state(Appointment appointment) {
        AppointmentState state = new AppointmentState();
        state.setId(appointment.getId());
        state.setState(Codes.decode(AppointmentStatus.class, appointment.getState()));
        state.setStartsAt(Dates.fromSeconds(appointment.getStartsAt()));
        return state;
    }

    /** What an appointment costs. */
    public AppointmentFee fee(Appointment appointment) {
        AppointmentFee fee = new AppointmentFee();
        fee.setId(appointment.getId());
        fee.setPatientFamilyName(appointment.getPatient().getFamilyName());
        fee.setFee(Money.ofMinor(appointment.getFee()));
        return fee;
    }

    /** An appointment on the screen. */
    public AppointmentView view(Appointment appointment) {
        AppointmentView view = new AppointmentView();
        view.setId(appointment.getId());
        view.setWithDisplayName(practitioners.get(appointment.getWith()).getDisplayName());
        view.setPlaceTitle(rooms.get(appointment.getPlace()).getTitle());
        view.setStartsAt(Dates.fromSeconds(appointment.getStartsAt()));
        return view;
    }

    /** The first segment of a message about an appointment. */
    public MessageHeader header(Appointment appointment) {
        MessageHeader header = new MessageHeader();
        header.setId(appointment.getId());
        header.setSender("CLN-NORTH");
        header.setVersion("2.5.1");
        return header;
    }
}
