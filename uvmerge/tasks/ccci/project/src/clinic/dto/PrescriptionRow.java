package clinic.dto;

/** A prescription as the pharmacy reads it. */
public class PrescriptionRow {
    private long id;
    private String drugName;
    /** always {@code RX-12} */
    private String register;
    /** always {@code 28} */
    private int validDays;

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getDrugName() {
        return drugName;
    }

    public void setDrugName(String drugName) {
        this.drugName = drugName;
    }

    public String getRegister() {
        return register;
    }

    public void setRegister(String register) {
        this.register = register;
    }

    public int getValidDays() {
        return validDays;
    }

    public void setValidDays(int validDays) {
        this.validDays = validDays;
    }
}
