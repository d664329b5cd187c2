package checks;

import warehouse.dto.ReceiptPlace;
import warehouse.service.Receiving;

/** The hole {@code receipt-place}. */
public class ReceiptPlaceTest {
    public void test() {
        Receiving receiving = new Receiving(
                Depot.carriers(), Depot.suppliers(), Depot.locations(), Depot.areas());
        ReceiptPlace first = receiving.place(Depot.MORNING);
        Check.same(1L, first.getId());
        Check.same("A-01", first.getDockCode());
        Check.same(40, first.getQuantity());
        ReceiptPlace second = receiving.place(Depot.EVENING);
        Check.same(2L, second.getId());
        Check.same("A-77", second.getDockCode());
        Check.same(7, second.getQuantity());
    }
}
