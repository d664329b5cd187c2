package clinic.entity;

/** A drug in one form. */
public class Drug {
    private long id;
    private String name;
    private String form;
    private int strength;

    public Drug() {
    }

    public Drug(long id, String name, String form, int strength) {
        this.id = id;
        this.name = name;
        this.form = form;
        this.strength = strength;
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

    public String getForm() {
        return form;
    }

    public void setForm(String form) {
        this.form = form;
    }

    public int getStrength() {
        return strength;
    }

    public void setStrength(int strength) {
        this.strength = strength;
    }
}
