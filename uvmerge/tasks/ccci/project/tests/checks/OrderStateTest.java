package checks;

import warehouse.dto.OrderState;
import warehouse.dto.OrderStatus;
import warehouse.service.Orders;

/** The hole {@code order-state}. */
public class OrderStateTest {
    public void test() {
        Orders orders = new Orders();
        OrderState first = orders.state(Depot.LARGE);
        Check.same("SO-1", first.getNumber());
        Check.same(OrderStatus.PACKED, first.getStatus());
        OrderState second = orders.state(Depot.SMALL);
        Check.same("SO-2", second.getNumber());
        Check.same(OrderStatus.CANCELLED, second.getStatus());
    }
}
