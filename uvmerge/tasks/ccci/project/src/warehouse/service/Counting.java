package warehouse.service;

import java.util.Map;

import transfer.Dates;
import warehouse.dto.CountRow;
import warehouse.dto.CountSheet;
import warehouse.entity.Area;
import warehouse.entity.Driver;
import warehouse.entity.Employee;
import warehouse.entity.Item;
import warehouse.entity.Location;
import warehouse.entity.StockCount;

/** What was found on the shelves. */
public class Counting {
    private final Map<Long, Location> locations;
    private final Map<Long, Area> areas;
    private final Map<Long, Item> items;
    private final Map<Long, Employee> employees;
    private final Map<Long, Driver> drivers;

    public Counting(
            Map<Long, Location> locations, Map<Long, Area> areas, Map<Long, Item> items,
            Map<Long, Employee> employees, Map<Long, Driver> drivers) {
        this.locations = locations;
        this.areas = areas;
        this.items = items;
        this.employees = employees;
        this.drivers = drivers;
    }

    /** How much can be looked up. */
    public int known() {
        return locations.size() + areas.size() + items.size() + employees.size() + drivers.size();
    }

    /** A count on paper. */
    public CountSheet sheet(StockCount count) {
        CountSheet sheet = new CountSheet();
        sheet.setPlaceCode(locations.get(count.getPlace()).getCode());
        sheet.setArticleSku(items.get(count.getArticle()).getSku());
        sheet.setCounted(count.getCounted());
        sheet.setByDisplayName(employees.get(count.getBy()).getDisplayName());
        return sheet;
    }

    /** A count in a table. */
    public CountRow row(StockCount count) {
        return new CountRow(
                count.getId(), count.getCounted(), Dates.fromCompact(count.getCountedOn()));
    }
}
