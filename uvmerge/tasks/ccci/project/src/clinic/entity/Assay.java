package clinic.entity;

import transfer.Table;

/** What the laboratory can measure. */
@Table("lab_assay")
public class Assay {
    private long id;
    private String title;
    private String unit;

    public Assay() {
    }

    public Assay(long id, String title, String unit) {
        this.id = id;
        this.title = title;
        this.unit = unit;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getTitle() {
        return title;
    }

    public void setTitle(String title) {
        this.title = title;
    }

    public String getUnit() {
        return unit;
    }

    public void setUnit(String unit) {
        this.unit = unit;
    }
}
