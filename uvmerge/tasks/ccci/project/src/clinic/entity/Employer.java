package clinic.entity;

/** A company that sends its staff for a check. */
public class Employer {
    private long id;
    private String name;
    private String plan;

    public Employer() {
    }

    public Employer(long id, String name, String plan) {
        this.id = id;
        this.name = name;
        this.plan = plan;
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

    public String getPlan() {
        return plan;
    }

    public void setPlan(String plan) {
        this.plan = plan;
    }
}
