package clinic.entity;

/** How a patient is reached. */
public class Contact {
    private String phone;
    private String email;
    private Residence residence;

    public Contact() {
    }

    public Contact(String phone, String email, Residence residence) {
        this.phone = phone;
        this.email = email;
        this.residence = residence;
    }

    public String getPhone() {
        return phone;
    }

    public void setPhone(String phone) {
        this.phone = phone;
    }

    public String getEmail() {
        return email;
    }

    public void setEmail(String email) {
        this.email = email;
    }

    public Residence getResidence() {
        return residence;
    }

    public void setResidence(Residence residence) {
        this.residence = residence;
    }
}
