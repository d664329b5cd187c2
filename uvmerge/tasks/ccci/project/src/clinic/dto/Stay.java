package clinic.dto;

import java.time.LocalDate;

/** How long a patient stayed. */
public class Stay {
    private long id;
    private LocalDate admittedOn;
    private LocalDate dischargedOn;

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public LocalDate getAdmittedOn() {
        return admittedOn;
    }

    public void setAdmittedOn(LocalDate admittedOn) {
        this.admittedOn = admittedOn;
    }

    public LocalDate getDischargedOn() {
        return dischargedOn;
    }

    public void setDischargedOn(LocalDate dischargedOn) {
        this.dischargedOn = dischargedOn;
    }
}
