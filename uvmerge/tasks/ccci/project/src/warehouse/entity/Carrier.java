package warehouse.entity;

/** A company that takes parcels away. */
public class Carrier {
    private long id;
    private String name;
    private String scac;
    private boolean active;

    public Carrier() {
    }

    public Carrier(long id, String name, String scac, boolean active) {
        this.id = id;
        this.name = name;
        this.scac = scac;
        this.active = active;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getName() {
        return name;
    }

    public void setName(String name) {
        this.name = name;
    }

    public String getScac() {
        return scac;
    }

    public void setScac(String scac) {
        this.scac = scac;
    }

    public boolean isActive() {
        return active;
    }

    public void setActive(boolean active) {
        this.active = active;
    }
}
