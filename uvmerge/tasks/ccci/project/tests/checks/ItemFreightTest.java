package checks;

import transfer.Weight;
import warehouse.dto.ItemFreight;
import warehouse.service.Items;

/** The hole {@code item-freight}. */
public class ItemFreightTest {
    public void test() {
        Items items = new Items(
                Depot.carriers(), Depot.suppliers(), Depot.locations(), Depot.areas());
        ItemFreight first = items.freight(Depot.LAMP);
        Check.same("L-100", first.getSku());
        Check.same(Weight.ofGrams(850), first.getWeight());
        ItemFreight second = items.freight(Depot.ROPE);
        Check.same("R-200", second.getSku());
        Check.same(Weight.ofGrams(12_400), second.getWeight());
    }
}
