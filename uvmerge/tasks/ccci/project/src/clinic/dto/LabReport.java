package clinic.dto;

import java.time.LocalDate;

/** A value as a doctor reads it. */
public class LabReport {
    private String sampledByDisplayName;
    private String testTitle;
    private String testUnit;
    private LocalDate sampledOn;

    public String getSampledByDisplayName() {
        return sampledByDisplayName;
    }

    public void setSampledByDisplayName(String sampledByDisplayName) {
        this.sampledByDisplayName = sampledByDisplayName;
    }

    public String getTestTitle() {
        return testTitle;
    }

    public void setTestTitle(String testTitle) {
        this.testTitle = testTitle;
    }

    public String getTestUnit() {
        return testUnit;
    }

    public void setTestUnit(String testUnit) {
        this.testUnit = testUnit;
    }

    public LocalDate getSampledOn() {
        return sampledOn;
    }

    public void setSampledOn(LocalDate sampledOn) {
        this.sampledOn = sampledOn;
    }
}
