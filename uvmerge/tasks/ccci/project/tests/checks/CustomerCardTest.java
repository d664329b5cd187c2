package checks;

import warehouse.dto.CustomerCard;
import warehouse.service.Customers;

/** The hole {@code customer-card}. */
public class CustomerCardTest {
    public void test() {
        Customers customers = new Customers();
        CustomerCard first = customers.card(Depot.ADA);
        Check.same(1L, first.getId());
        Check.same("ada@x.example", first.getEmail());
        Check.same("Uppsala", first.getAddressCity());
        Check.same("SE", first.getAddressCountry());
        CustomerCard second = customers.card(Depot.RUI);
        Check.same(2L, second.getId());
        Check.same("rui@y.example", second.getEmail());
        Check.same("Porto", second.getAddressCity());
        Check.same("PT", second.getAddressCountry());
    }
}
