package warehouse.dto;

import java.util.ArrayList;
import java.util.List;

/** A pallet on the screen. */
public class PalletView {
    private String label;
    private String locationCode;
    private List<ItemLabel> items = new ArrayList<>();

    public String getLabel() {
        return label;
    }

    public void setLabel(String label) {
        this.label = label;
    }

    public String getLocationCode() {
        return locationCode;
    }

    public void setLocationCode(String locationCode) {
        this.locationCode = locationCode;
    }

    public List<ItemLabel> getItems() {
        return items;
    }

    public void setItems(List<ItemLabel> items) {
        this.items = items;
    }
}
