package checks;

import warehouse.dto.AddressView;
import warehouse.service.Customers;

/** The hole {@code address-view}. */
public class AddressViewTest {
    public void test() {
        Customers customers = new Customers();
        AddressView first = customers.address(Depot.MILL);
        Check.same("Mill Lane 4", first.getStreet());
        Check.same("Uppsala", first.getCity());
        Check.same("75310", first.getPostalCode());
        Check.same("SE", first.getCountry());
        AddressView second = customers.address(Depot.QUAY);
        Check.same("Quay 9", second.getStreet());
        Check.same("Porto", second.getCity());
        Check.same("4050", second.getPostalCode());
        Check.same("PT", second.getCountry());
    }
}
