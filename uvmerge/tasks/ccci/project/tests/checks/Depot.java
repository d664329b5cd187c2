package checks;

import java.util.List;
import java.util.Map;

import warehouse.entity.Address;
import warehouse.entity.Area;
import warehouse.entity.Carrier;
import warehouse.entity.Customer;
import warehouse.entity.Driver;
import warehouse.entity.Employee;
import warehouse.entity.Item;
import warehouse.entity.Location;
import warehouse.entity.OrderLine;
import warehouse.entity.Receipt;
import warehouse.entity.SalesOrder;
import warehouse.entity.Shipment;
import warehouse.entity.StockCount;
import warehouse.entity.Supplier;

/** A small warehouse; the same numbers are keys of different things. */
final class Depot {
    static final Carrier SWIFT = new Carrier(1, "Swift", "SWFT", true);
    static final Carrier NORTHLINE = new Carrier(2, "Northline", "NLNE", false);
    static final Supplier ALDER = new Supplier(1, "Alder", "SE", 4);
    static final Supplier BIRCH = new Supplier(2, "Birch", "PT", 2);
    static final Area COLD = new Area(1, "Z-C", "cold", 4);
    static final Area DRY = new Area(2, "Z-D", "dry", 18);
    static final Location LOW = new Location(1, 2, "A-01", 500_000);
    static final Location HIGH = new Location(2, 1, "A-77", 80_000);
    static final Item LAMP = new Item(1, "L-100", "Lamp", 1_999, 850, 2, 1);
    static final Item ROPE = new Item(2, "R-200", "Rope", 705, 12_400, 1, 2);
    static final Item SOAP = new Item(3, "S-300", "Soap", 90, 125, 2, 2);
    static final Address MILL = new Address(1, "Mill Lane 4", "Uppsala", "75310", "SE");
    static final Address QUAY = new Address(2, "Quay 9", "Porto", "4050", "PT");
    static final Customer ADA = new Customer(1, "Ada", "Lind", "ada@x.example", "G", MILL);
    static final Customer RUI = new Customer(2, "Rui", "Reis", "rui@y.example", "N", QUAY);
    static final SalesOrder LARGE = new SalesOrder(
            1, "SO-1", ADA, 20240131, "P",
            List.of(new OrderLine(1, LAMP, 3, 1_900), new OrderLine(2, SOAP, 10, 88),
                    new OrderLine(3, LAMP, 2, 1_850)),
            "ring twice");
    static final SalesOrder SMALL = new SalesOrder(
            2, "SO-2", RUI, 20231205, "X", List.of(new OrderLine(4, ROPE, 1, 705)), null);
    static final Shipment FIRST = new Shipment(1, "T-1", 2, 86_400, 9_300, LARGE);
    static final Shipment SECOND = new Shipment(2, "T-2", 1, 760_000_000, 41, SMALL);
    static final Receipt MORNING = new Receipt(1, 2, 20240229, 1, 40, "wet");
    static final Receipt EVENING = new Receipt(2, 1, 20231101, 2, 7, null);
    static final StockCount SHELF = new StockCount(1, 2, 3, 118, 1, 20240630);
    static final StockCount FLOOR = new StockCount(2, 1, 2, 5, 2, 20240701);

    private Depot() {
    }

    static Map<Long, Carrier> carriers() {
        return Map.of(1L, SWIFT, 2L, NORTHLINE);
    }

    static Map<Long, Supplier> suppliers() {
        return Map.of(1L, ALDER, 2L, BIRCH);
    }

    static Map<Long, Area> areas() {
        return Map.of(1L, COLD, 2L, DRY);
    }

    static Map<Long, Location> locations() {
        return Map.of(1L, LOW, 2L, HIGH);
    }

    static Map<Long, Item> items() {
        return Map.of(1L, LAMP, 2L, ROPE, 3L, SOAP);
    }

    static Map<Long, Employee> employees() {
        return Map.of(1L, new Employee(1, "Ida", "E-1"), 2L, new Employee(2, "Jon", "E-2"));
    }

    static Map<Long, Driver> drivers() {
        return Map.of(1L, new Driver(1, "Kay", "D-1"), 2L, new Driver(2, "Lou", "D-2"));
    }
}
