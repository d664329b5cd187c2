package clinic.dto;

/** Where a patient lies. */
public class PatientBed {
    private String familyName;
    private String wardTitle;
    private int wardFloor;

    public String getFamilyName() {
        return familyName;
    }

    public void setFamilyName(String familyName) {
        this.familyName = familyName;
    }

    public String getWardTitle() {
        return wardTitle;
    }

    public void setWardTitle(String wardTitle) {
        this.wardTitle = wardTitle;
    }

    public int getWardFloor() {
        return wardFloor;
    }

    public void setWardFloor(int wardFloor) {
        this.wardFloor = wardFloor;
    }
}
