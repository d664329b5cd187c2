package clinic.dto;

/** Whom the desk calls. */
public class PatientPhone {
    private String familyName;
    /** {@code ask at desk} where no contact is known */
    private String phone;

    public String getFamilyName() {
        return familyName;
    }

    public void setFamilyName(String familyName) {
        this.familyName = familyName;
    }

    public String getPhone() {
        return phone;
    }

    public void setPhone(String phone) {
        this.phone = phone;
    }
}
