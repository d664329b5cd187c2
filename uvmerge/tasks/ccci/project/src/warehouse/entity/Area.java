package warehouse.entity;

import transfer.Table;

/** A part of the hall with one temperature. */
@Table("whs_zone")
public class Area {
    private long id;
    private String code;
    private String label;
    private int celsius;

    public Area() {
    }

    public Area(long id, String code, String label, int celsius) {
        this.id = id;
        this.code = code;
        this.label = label;
        this.celsius = celsius;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getCode() {
        return code;
    }

    public void setCode(String code) {
        this.code = code;
    }

    public String getLabel() {
        return label;
    }

    public void setLabel(String label) {
        this.label = label;
    }

    public int getCelsius() {
        return celsius;
    }

    public void setCelsius(int celsius) {
        this.celsius = celsius;
    }
}
