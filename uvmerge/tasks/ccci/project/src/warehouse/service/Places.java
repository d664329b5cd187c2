package warehouse.service;

import java.util.Map;

import warehouse.dto.ItemLabel;
import warehouse.dto.LocationView;
import warehouse.dto.PalletView;
import warehouse.entity.Area;
import warehouse.entity.Item;
import warehouse.entity.Location;
import warehouse.entity.Pallet;

/** Places and what stands on them. */
public class Places {
    private final Map<Long, Location> locations;
    private final Map<Long, Area> areas;

    public Places(Map<Long, Location> locations, Map<Long, Area> areas) {
        this.locations = locations;
        this.areas = areas;
    }

    /** How many places there are. */
    public int size() {
        return locations.size() + areas.size();
    }

    /** A place with the part of the hall that it is in. */
    public LocationView view(Location location) {
        LocationView view = new LocationView();
        view.setCode(location.getCode());
        view.setZoneCode(areas.get(location.getZone()).getCode());
        view.setZoneLabel(areas.get(location.getZone()).getLabel());
        return view;
    }

    /** A pallet with what stands on it. */
    public PalletView pallet(Pallet pallet) {
        PalletView view = new PalletView();
        view.setLabel(pallet.getLabel());
        view.setLocationCode(pallet.getLocation().getCode());
        for (Item item : pallet.getItems()) {
            ItemLabel label = new ItemLabel();
            label.setSku(item.getSku());
            label.setTitle(item.getTitle());
            view.getItems().add(label);
        }
        return view;
    }
}
