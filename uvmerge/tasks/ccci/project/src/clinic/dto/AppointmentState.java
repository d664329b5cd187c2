package clinic.dto;

import java.time.Instant;

/** How far an appointment is. */
public class AppointmentState {
    private long id;
    private AppointmentStatus state;
    private Instant startsAt;

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public AppointmentStatus getState() {
        return state;
    }

    public void setState(AppointmentStatus state) {
        this.state = state;
    }

    public Instant getStartsAt() {
        return startsAt;
    }

    public void setStartsAt(Instant startsAt) {
        this.startsAt = startsAt;
    }
}
