package warehouse.dto;

import transfer.Weight;

/** What an item weighs. */
public class ItemFreight {
    private String sku;
    private Weight weight;

    public String getSku() {
        return sku;
    }

    public void setSku(String sku) {
        this.sku = sku;
    }

    public Weight getWeight() {
        return weight;
    }

    public void setWeight(Weight weight) {
        this.weight = weight;
    }
}
