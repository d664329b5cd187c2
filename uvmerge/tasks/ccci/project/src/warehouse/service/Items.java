package warehouse.service;

import java.util.Map;

import transfer.Money;
import transfer.Weight;
import warehouse.dto.ItemForm;
import warehouse.dto.ItemFreight;
import warehouse.dto.ItemPrice;
import warehouse.dto.ItemShelf;
import warehouse.entity.Area;
import warehouse.entity.Carrier;
import warehouse.entity.Item;
import warehouse.entity.Location;
import warehouse.entity.Supplier;

/** What is kept and sold. */
public class Items {
    private final Map<Long, Carrier> carriers;
    private final Map<Long, Supplier> suppliers;
    private final Map<Long, Location> locations;
    private final Map<Long, Area> areas;

    public Items(
            Map<Long, Carrier> carriers, Map<Long, Supplier> suppliers,
            Map<Long, Location> locations, Map<Long, Area> areas) {
        this.carriers = carriers;
        this.suppliers = suppliers;
        this.locations = locations;
        this.areas = areas;
    }

    /** Whether nothing can be looked up. */
    public boolean isEmpty() {
        return carriers.isEmpty() && suppliers.isEmpty() && locations.isEmpty() && areas.isEmpty();
    }

    /** What an item costs. */
    public ItemPrice price(Item item) {
        ItemPrice price = new ItemPrice();
        price.setSku(item.getSku());
        price.setTitle(item.getTitle());
        price.setPrice(Money.ofMinor(item.getPrice()));
        return price;
    }

    /** What an item weighs. */
    public ItemFreight freight(Item item) {
        ItemFreight freight = new ItemFreight();
        freight.setSku(item.getSku());
        freight.setWeight(Weight.ofGrams(item.getWeight()));
        return freight;
    }

    /** Where an item comes from and where it is kept. */
    public ItemShelf shelf(Item item) {
        ItemShelf shelf = new ItemShelf();
        shelf.setSku(item.getSku());
        shelf.setVendorName(suppliers.get(item.getVendor()).getName());
        shelf.setHomeCode(locations.get(item.getHome()).getCode());
        return shelf;
    }

    /** Takes over what was typed in; who sells the item and where it is kept stay. */
    public void take(ItemForm form, Item item) {
        item.setSku(form.getSku());
        item.setTitle(form.getTitle());
        item.setPrice(form.getPrice().minor());
        item.setWeight(form.getWeight().grams());
    }
}
