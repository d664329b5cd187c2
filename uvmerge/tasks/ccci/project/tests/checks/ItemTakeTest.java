package checks;

import transfer.Money;
import transfer.Weight;
import warehouse.dto.ItemForm;
import warehouse.entity.Item;
import warehouse.service.Items;

/** The hole {@code item-take}. */
public class ItemTakeTest {
    public void test() {
        Items items = new Items(
                Depot.carriers(), Depot.suppliers(), Depot.locations(), Depot.areas());
        long[] prices = {4_950, 1};
        long[] weights = {725, 90_000};
        for (int i = 0; i < 2; i++) {
            ItemForm form = new ItemForm();
            form.setSku("N-" + i);
            form.setTitle("title " + i);
            form.setPrice(Money.ofMinor(prices[i]));
            form.setWeight(Weight.ofGrams(weights[i]));
            Item item = new Item(8, "O", "old", 1_000, 2_000, 2, 1);
            items.take(form, item);
            Check.same("N-" + i, item.getSku());
            Check.same("title " + i, item.getTitle());
            Check.same(prices[i], item.getPrice());
            Check.same(weights[i], item.getWeight());
            Check.same(8L, item.getId());
            Check.same(2L, item.getVendor());
            Check.same(1L, item.getHome());
        }
    }
}
