package checks;

import transfer.Money;
import warehouse.dto.OrderSum;
import warehouse.service.Orders;

/** The hole {@code order-sum}. */
public class OrderSumTest {
    public void test() {
        Orders orders = new Orders();
        OrderSum first = orders.sum(Depot.LARGE);
        Check.same("SO-1", first.getNumber());
        Check.same(Money.ofMinor(10280), first.getTotal());
        OrderSum second = orders.sum(Depot.SMALL);
        Check.same("SO-2", second.getNumber());
        Check.same(Money.ofMinor(705), second.getTotal());
    }
}
