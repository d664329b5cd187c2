package clinic.entity;

import transfer.Table;

/** Somebody who keeps the books. */
@Table("med_office")
public class Secretary {
    private long id;
    private String displayName;
    private String specialty;

    public Secretary() {
    }

    public Secretary(long id, String displayName, String specialty) {
        this.id = id;
        this.displayName = displayName;
        this.specialty = specialty;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getDisplayName() {
        return displayName;
    }

    public void setDisplayName(String displayName) {
        this.displayName = displayName;
    }

    public String getSpecialty() {
        return specialty;
    }

    public void setSpecialty(String specialty) {
        this.specialty = specialty;
    }
}
