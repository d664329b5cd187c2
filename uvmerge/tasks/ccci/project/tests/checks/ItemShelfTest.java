package checks;

import warehouse.dto.ItemShelf;
import warehouse.service.Items;

/** The hole {@code item-shelf}. */
public class ItemShelfTest {
    public void test() {
        Items items = new Items(
                Depot.carriers(), Depot.suppliers(), Depot.locations(), Depot.areas());
        ItemShelf first = items.shelf(Depot.LAMP);
        Check.same("L-100", first.getSku());
        Check.same("Birch", first.getVendorName());
        Check.same("A-01", first.getHomeCode());
        ItemShelf second = items.shelf(Depot.ROPE);
        Check.same("R-200", second.getSku());
        Check.same("Alder", second.getVendorName());
        Check.same("A-77", second.getHomeCode());
    }
}
