package clinic.dto;

/** The head of a letter. */
public class PatientLetter {
    private String familyName;
    private String contactResidenceStreet;
    private String contactResidenceCity;

    public String getFamilyName() {
        return familyName;
    }

    public void setFamilyName(String familyName) {
        this.familyName = familyName;
    }

    public String getContactResidenceStreet() {
        return contactResidenceStreet;
    }

    public void setContactResidenceStreet(String contactResidenceStreet) {
        this.contactResidenceStreet = contactResidenceStreet;
    }

    public String getContactResidenceCity() {
        return contactResidenceCity;
    }

    public void setContactResidenceCity(String contactResidenceCity) {
        this.contactResidenceCity = contactResidenceCity;
    }
}
