package checks;

import java.time.LocalDate;

import warehouse.dto.OrderDay;
import warehouse.service.Orders;

/** The hole {@code order-day}. */
public class OrderDayTest {
    public void test() {
        Orders orders = new Orders();
        OrderDay first = orders.day(Depot.LARGE);
        Check.same("SO-1", first.getNumber());
        Check.same(LocalDate.of(2024, 1, 31), first.getPlacedOn());
        OrderDay second = orders.day(Depot.SMALL);
        Check.same("SO-2", second.getNumber());
        Check.same(LocalDate.of(2023, 12, 5), second.getPlacedOn());
    }
}
