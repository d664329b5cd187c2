package warehouse.dto;

/** What is printed on a box. */
public class ItemLabel {
    private String sku;
    private String title;

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
}
