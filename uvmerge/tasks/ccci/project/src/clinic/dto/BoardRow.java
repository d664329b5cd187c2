package clinic.dto;

import java.time.LocalDate;

/** A patient on the board of a ward. */
public class BoardRow {
    private String patientFamilyName;
    private String stationTitle;
    private String attendingDisplayName;
    private LocalDate admittedOn;

    public String getPatientFamilyName() {
        return patientFamilyName;
    }

    public void setPatientFamilyName(String patientFamilyName) {
        this.patientFamilyName = patientFamilyName;
    }

    public String getStationTitle() {
        return stationTitle;
    }

    public void setStationTitle(String stationTitle) {
        this.stationTitle = stationTitle;
    }

    public String getAttendingDisplayName() {
        return attendingDisplayName;
    }

    public void setAttendingDisplayName(String attendingDisplayName) {
        this.attendingDisplayName = attendingDisplayName;
    }

    public LocalDate getAdmittedOn() {
        return admittedOn;
    }

    public void setAdmittedOn(LocalDate admittedOn) {
        this.admittedOn = admittedOn;
    }
}
