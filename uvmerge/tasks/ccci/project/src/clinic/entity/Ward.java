package clinic.entity;

import transfer.Table;

/** Beds that one team looks after. */
@Table("med_unit")
public class Ward {
    private long id;
    private String title;
    private int floor;

    public Ward() {
    }

    public Ward(long id, String title, int floor) {
        this.id = id;
        this.title = title;
        this.floor = floor;
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

    public int getFloor() {
        return floor;
    }

    public void setFloor(int floor) {
        this.floor = floor;
    }
}
