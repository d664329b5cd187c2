package clinic.dto;

/** A patient on the list of a ward round. */
public class RoundRow {
    private String patientFamilyName;
    private String reason;

    public String getPatientFamilyName() {
        return patientFamilyName;
    }

    public void setPatientFamilyName(String patientFamilyName) {
        this.patientFamilyName = patientFamilyName;
    }

    public String getReason() {
        return reason;
    }

    public void setReason(String reason) {
        this.reason = reason;
    }
}
