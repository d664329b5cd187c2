package clinic.entity;

/** Where patients are seen. */
public class Room {
    private long id;
    private String number;
    private String title;

    public Room() {
    }

    public Room(long id, String number, String title) {
        this.id = id;
        this.number = number;
        this.title = title;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public String getTitle() {
        return title;
    }

    public void setTitle(String title) {
        this.title = title;
    }
}
