package checks;

import java.util.List;

import warehouse.dto.ItemLabel;
import warehouse.dto.PalletView;
import warehouse.entity.Item;
import warehouse.entity.Pallet;
import warehouse.service.Places;

/** The hole {@code pallet-view}. */
public class PalletViewTest {
    public void test() {
        Places places = new Places(Depot.locations(), Depot.areas());
        List<Item> items = List.of(Depot.ROPE, Depot.LAMP);
        PalletView view = places.pallet(new Pallet(1, "P-1", Depot.HIGH, items));
        Check.same("P-1", view.getLabel());
        Check.same("A-77", view.getLocationCode());
        Check.same(2, view.getItems().size());
        for (int i = 0; i < 2; i++) {
            ItemLabel label = view.getItems().get(i);
            Check.same(items.get(i).getSku(), label.getSku());
            Check.same(items.get(i).getTitle(), label.getTitle());
        }
        PalletView empty = places.pallet(new Pallet(2, "P-2", Depot.LOW, List.of()));
        Check.same("P-2", empty.getLabel());
        Check.same("A-01", empty.getLocationCode());
        Check.same(List.of(), empty.getItems());
    }
}
