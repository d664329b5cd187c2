package clinic.entity;

/** A patient's stay. */
public class Admission {
    private long id;
    private Patient patient;
    private long station;
    private long attending;
    private int admittedOn;
    private Integer dischargedOn;
    private String reason;

    public Admission() {
    }

    public Admission(
            long id, Patient patient, long station, long attending, int admittedOn,
            Integer dischargedOn, String reason) {
        this.id = id;
        this.patient = patient;
        this.station = station;
        this.attending = attending;
        this.admittedOn = admittedOn;
        this.dischargedOn = dischargedOn;
        this.reason = reason;
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

    public long getStation() {
        return station;
    }

    public void setStation(long station) {
        this.station = station;
    }

    public long getAttending() {
        return attending;
    }

    public void setAttending(long attending) {
        this.attending = attending;
    }

    public int getAdmittedOn() {
        return admittedOn;
    }

    public void setAdmittedOn(int admittedOn) {
        this.admittedOn = admittedOn;
    }

    public Integer getDischargedOn() {
        return dischargedOn;
    }

    public void setDischargedOn(Integer dischargedOn) {
        this.dischargedOn = dischargedOn;
    }

    public String getReason() {
        return reason;
    }

    public void setReason(String reason) {
        this.reason = reason;
    }
}
