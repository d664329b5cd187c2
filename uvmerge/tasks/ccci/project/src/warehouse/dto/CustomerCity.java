package warehouse.dto;

/** Where a customer's parcels go. */
public class CustomerCity {
    private long id;
    private String email;
    /** {@code n/a} where the customer has no address */
    private String city;

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getEmail() {
        return email;
    }

    public void setEmail(String email) {
        this.email = email;
    }

    public String getCity() {
        return city;
    }

    public void setCity(String city) {
        this.city = city;
    }
}
