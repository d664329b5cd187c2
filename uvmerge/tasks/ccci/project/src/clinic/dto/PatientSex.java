package clinic.dto;

/** Which ranges hold for a patient. */
public class PatientSex {
    private String familyName;
    private Sex sex;

    public String getFamilyName() {
        return familyName;
    }

    public void setFamilyName(String familyName) {
        this.familyName = familyName;
    }

    public Sex getSex() {
        return sex;
    }

    public void setSex(Sex sex) {
        this.sex = sex;
    }
}
