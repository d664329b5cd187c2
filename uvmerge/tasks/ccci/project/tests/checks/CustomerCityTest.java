package checks;

import warehouse.dto.CustomerCity;
import warehouse.entity.Customer;
import warehouse.service.Customers;

/** The hole {@code customer-city}. */
public class CustomerCityTest {
    public void test() {
        Customers customers = new Customers();
        CustomerCity first = customers.city(Depot.ADA);
        Check.same(1L, first.getId());
        Check.same("ada@x.example", first.getEmail());
        Check.same("Uppsala", first.getCity());
        CustomerCity second = customers.city(new Customer(7, "Bo", "Ek", "bo@z.se", "S", null));
        Check.same(7L, second.getId());
        Check.same("bo@z.se", second.getEmail());
        Check.same("n/a", second.getCity());
    }
}
