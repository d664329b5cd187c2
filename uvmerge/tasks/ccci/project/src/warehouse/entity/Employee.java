package warehouse.entity;

import transfer.Table;

/** Somebody who works in the hall. */
@Table("whs_staff")
public class Employee {
    private long id;
    private String displayName;
    private String badge;

    public Employee() {
    }

    public Employee(long id, String displayName, String badge) {
        this.id = id;
        this.displayName = displayName;
        this.badge = badge;
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

    public String getBadge() {
        return badge;
    }

    public void setBadge(String badge) {
        this.badge = badge;
    }
}
