package warehouse.entity;

import java.util.ArrayList;
import java.util.List;

/** Items that stand together. */
public class Pallet {
    private long id;
    private String label;
    private Location location;
    private List<Item> items = new ArrayList<>();

    public Pallet() {
    }

    public Pallet(long id, String label, Location location, List<Item> items) {
        this.id = id;
        this.label = label;
        this.location = location;
        this.items = items;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getLabel() {
        return label;
    }

    public void setLabel(String label) {
        this.label = label;
    }

    public Location getLocation() {
        return location;
    }

    public void setLocation(Location location) {
        this.location = location;
    }

    public List<Item> getItems() {
        return items;
    }

    public void setItems(List<Item> items) {
        this.items = items;
    }
}
