package warehouse.entity;

import transfer.Table;

/** A place on a shelf. */
@Table("whs_bin")
public class Location {
    private long id;
    private long zone;
    private String code;
    private long capacity;

    public Location() {
    }

    public Location(long id, long zone, String code, long capacity) {
        this.id = id;
        this.zone = zone;
        this.code = code;
        this.capacity = capacity;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public long getZone() {
        return zone;
    }

    public void setZone(long zone) {
        this.zone = zone;
    }

    public String getCode() {
        return code;
    }

    public void setCode(String code) {
        this.code = code;
    }

    public long getCapacity() {
        return capacity;
    }

    public void setCapacity(long capacity) {
        this.capacity = capacity;
    }
}
