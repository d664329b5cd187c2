package clinic.dto;

import transfer.Coded;

/** How far an appointment is. */
public enum AppointmentStatus implements Coded {
    BOOKED("B"),
    ARRIVED("A"),
    DONE("D"),
    MISSED("M");

    private final String code;

    AppointmentStatus(String code) {
        this.code = code;
    }

    @Override
    public String code() {
        return code;
    }
}
