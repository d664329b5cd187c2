package clinic.entity;

/** A company that pays for treatment. */
public class Insurer {
    private long id;
    private String name;
    private String plan;

    public Insurer() {
    }

    public Insurer(long id, String name, String plan) {
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
