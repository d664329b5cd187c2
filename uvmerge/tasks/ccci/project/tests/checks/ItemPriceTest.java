package checks;

import transfer.Money;
import warehouse.dto.ItemPrice;
import warehouse.service.Items;

/** The hole {@code item-price}. */
public class ItemPriceTest {
    public void test() {
        Items items = new Items(
                Depot.carriers(), Depot.suppliers(), Depot.locations(), Depot.areas());
        ItemPrice first = items.price(Depot.LAMP);
        Check.same("L-100", first.getSku());
        Check.same("Lamp", first.getTitle());
        Check.same(Money.ofMinor(1999), first.getPrice());
        ItemPrice second = items.price(Depot.SOAP);
        Check.same("S-300", second.getSku());
        Check.same("Soap", second.getTitle());
        Check.same(Money.ofMinor(90), second.getPrice());
    }
}
