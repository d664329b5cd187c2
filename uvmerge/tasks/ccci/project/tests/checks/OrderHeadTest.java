package checks;

import warehouse.dto.OrderHead;
import warehouse.service.Orders;

/** The hole {@code order-head}. */
public class OrderHeadTest {
    public void test() {
        Orders orders = new Orders();
        OrderHead first = orders.head(Depot.LARGE);
        Check.same("SO-1", first.getNumber());
        Check.same("ada@x.example", first.getCustomerEmail());
        Check.same("Uppsala", first.getCustomerAddressCity());
        Check.same("ring twice", first.getNote());
        OrderHead second = orders.head(Depot.SMALL);
        Check.same("SO-2", second.getNumber());
        Check.same("rui@y.example", second.getCustomerEmail());
        Check.same("Porto", second.getCustomerAddressCity());
        Check.same(null, second.getNote());
    }
}
