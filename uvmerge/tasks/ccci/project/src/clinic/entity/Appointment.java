package clinic.entity;

/** A patient and a practitioner at one time. */
public class Appointment {
    private long id;
    private Patient patient;
    private long with;
    private long place;
    private long startsAt;
    private String state;
    private long fee;

    public Appointment() {
    }

    public Appointment(
            long id, Patient patient, long with, long place, long startsAt, String state,
            long fee) {
        this.id = id;
        this.patient = patient;
        this.with = with;
        this.place = place;
        this.startsAt = startsAt;
        this.state = state;
        this.fee = fee;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public Patient getPatient() {
        return patient;
    }

    public void setPatient(Patient patient) {
        this.patient = patient;
    }

    public long getWith() {
        return with;
    }

    public void setWith(long with) {
        this.with = with;
    }

    public long getPlace() {
        return place;
    }

    public void setPlace(long place) {
        this.place = place;
    }

    public long getStartsAt() {
        return startsAt;
    }

    public void setStartsAt(long startsAt) {
        this.startsAt = startsAt;
    }

    public String getState() {
        return state;
    }

    public void setState(String state) {
        this.state = state;
    }

    public long getFee() {
        return fee;
    }

    public void setFee(long fee) {
        this.fee = fee;
    }
}
