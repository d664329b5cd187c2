package checks;

import warehouse.dto.LineView;
import warehouse.dto.OrderView;
import warehouse.service.Orders;

/** The hole {@code order-view}. */
public class OrderViewTest {
    public void test() {
        OrderView large = new Orders().view(Depot.LARGE);
        Check.same("SO-1", large.getNumber());
        Check.same(3, large.getLines().size());
        String[] skus = {"L-100", "S-300", "L-100"};
        String[] titles = {"Lamp", "Soap", "Lamp"};
        int[] quantities = {3, 10, 2};
        for (int i = 0; i < 3; i++) {
            LineView line = large.getLines().get(i);
            Check.same(skus[i], line.getItemSku());
            Check.same(titles[i], line.getItemTitle());
            Check.same(quantities[i], line.getQuantity());
        }
        OrderView small = new Orders().view(Depot.SMALL);
        Check.same("SO-2", small.getNumber());
        Check.same(1, small.getLines().size());
        Check.same("R-200", small.getLines().get(0).getItemSku());
    }
}
