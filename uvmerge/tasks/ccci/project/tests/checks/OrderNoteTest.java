package checks;

import warehouse.dto.OrderNote;
import warehouse.service.Orders;

/** The hole {@code order-note}. */
public class OrderNoteTest {
    public void test() {
        Orders orders = new Orders();
        OrderNote first = orders.note(Depot.LARGE);
        Check.same("SO-1", first.getNumber());
        Check.same("ring twice", first.getNote());
        OrderNote second = orders.note(Depot.SMALL);
        Check.same("SO-2", second.getNumber());
        Check.same("nothing noted", second.getNote());
    }
}
