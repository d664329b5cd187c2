package clinic.entity;

/** A drug for a patient. */
public class Prescription {
    private long id;
    private Patient patient;
    private long issuedBy;
    private Drug drug;
    private int dose;
    private int issuedOn;

    public Prescription() {
    }

    public Prescription(
            long id, Patient patient, long issuedBy, Drug drug, int dose, int issuedOn) {
        this.id = id;
        this.patient = patient;
        this.issuedBy = issuedBy;
        this.drug = drug;
        this.dose = dose;
        this.issuedOn = issuedOn;
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

    public long getIssuedBy() {
        return issuedBy;
    }

    public void setIssuedBy(long issuedBy) {
        this.issuedBy = issuedBy;
    }

    public Drug getDrug() {
        return drug;
    }

    public void setDrug(Drug drug) {
        this.drug = drug;
    }

    public int getDose() {
        return dose;
    }

    public void setDose(int dose) {
        this.dose = dose;
    }

    public int getIssuedOn() {
        return issuedOn;
    }

    public void setIssuedOn(int issuedOn) {
        this.issuedOn = issuedOn;
    }
}
