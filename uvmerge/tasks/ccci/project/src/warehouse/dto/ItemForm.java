package warehouse.dto;

import transfer.Money;
import transfer.Weight;

/** An item as it is typed in. */
public class ItemForm {
    private String sku;
    private String title;
    private Money price;
    private Weight weight;

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

    public Money getPrice() {
        return price;
    }

    public void setPrice(Money price) {
        this.price = price;
    }

    public Weight getWeight() {
        return weight;
    }

    public void setWeight(Weight weight) {
        this.weight = weight;
    }
}
