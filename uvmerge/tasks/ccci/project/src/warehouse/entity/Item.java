package warehouse.entity;

/** Something that is kept and sold. */
public class Item {
    private long id;
    private String sku;
    private String title;
    private long price;
    private long weight;
    private long vendor;
    private long home;

    public Item() {
    }

    public Item(
            long id, String sku, String title, long price, long weight, long vendor, long home) {
        this.id = id;
        this.sku = sku;
        this.title = title;
        this.price = price;
        this.weight = weight;
        this.vendor = vendor;
        this.home = home;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getSku() {
        return sku;
    }

    public void setSku(String sku) {
        this.sku = sku;
    }

    public String getTitle() {
        return title;
    }

    public void setTitle(String title) {
        this.title = title;
    }

    public long getPrice() {
        return price;
    }

    public void setPrice(long price) {
        this.price = price;
    }

    public long getWeight() {
        return weight;
    }

    public void setWeight(long weight) {
        this.weight = weight;
    }

    public long getVendor() {
        return vendor;
    }

    public void setVendor(long vendor) {
        this.vendor = vendor;
    }

    public long getHome() {
        return home;
    }

    public void setHome(long home) {
        this.home = home;
    }
}
