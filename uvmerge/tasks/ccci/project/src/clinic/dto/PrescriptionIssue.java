package clinic.dto;

/** Who prescribed what. */
public class PrescriptionIssue {
    private String issuedByDisplayName;
    private String issuedBySpecialty;
    private String drugName;

    public String getIssuedByDisplayName() {
        return issuedByDisplayName;
    }

    public void setIssuedByDisplayName(String issuedByDisplayName) {
        this.issuedByDisplayName = issuedByDisplayName;
    }

    public String getIssuedBySpecialty() {
        return issuedBySpecialty;
    }

    public void setIssuedBySpecialty(String issuedBySpecialty) {
        this.issuedBySpecialty = issuedBySpecialty;
    }

    public String getDrugName() {
        return drugName;
    }

    public void setDrugName(String drugName) {
        this.drugName = drugName;
    }
}
