package clinic.dto;

/** A value as a chart shows it. */
public class LabValue {
    private long id;
    /** the reading is kept in thousandths of the unit */
    private double value;

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public double getValue() {
        return value;
    }

    public void setValue(double value) {
        this.value = value;
    }
}
