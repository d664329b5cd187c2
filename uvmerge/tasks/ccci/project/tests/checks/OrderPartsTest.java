package checks;

import java.util.Map;

import warehouse.dto.OrderParts;
import warehouse.service.Orders;

/** The hole {@code order-parts}. */
public class OrderPartsTest {
    public void test() {
        Orders orders = new Orders();
        OrderParts first = orders.parts(Depot.LARGE);
        Check.same("SO-1", first.getNumber());
        Check.same(Map.of("L-100", 5, "S-300", 10), first.getPieces());
        OrderParts second = orders.parts(Depot.SMALL);
        Check.same("SO-2", second.getNumber());
        Check.same(Map.of("R-200", 1), second.getPieces());
    }
}
