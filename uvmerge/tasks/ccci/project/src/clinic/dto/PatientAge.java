package clinic.dto;

import java.time.LocalDate;

/** How old a patient is. */
public class PatientAge {
    private String familyName;
    private LocalDate born;

    public String getFamilyName() {
        return familyName;
    }

    public void setFamilyName(String familyName) {
        this.familyName = familyName;
    }

    public LocalDate getBorn() {
        return born;
    }

    public void setBorn(LocalDate born) {
        this.born = born;
    }
}
