package clinic.entity;

/** One measured value. */
public class LabResult {
    private long id;
    private long sampledBy;
    private long test;
    private long reading;
    private int sampledOn;

    public LabResult() {
    }

    public LabResult(long id, long sampledBy, long test, long reading, int sampledOn) {
        this.id = id;
        this.sampledBy = sampledBy;
        this.test = test;
        this.reading = reading;
        this.sampledOn = sampledOn;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public long getSampledBy() {
        return sampledBy;
    }

    public void setSampledBy(long sampledBy) {
        this.sampledBy = sampledBy;
    }

    public long getTest() {
        return test;
    }

    public void setTest(long test) {
        this.test = test;
    }

    public long getReading() {
        return reading;
    }

    public void setReading(long reading) {
        this.reading = reading;
    }

    public int getSampledOn() {
        return sampledOn;
    }

    public void setSampledOn(int sampledOn) {
        this.sampledOn = sampledOn;
    }
}
