package checks;

import warehouse.dto.CarrierView;
import warehouse.service.Partners;

/** The hole {@code carrier-view}. */
public class CarrierViewTest {
    public void test() {
        Partners partners = new Partners();
        CarrierView first = partners.view(Depot.SWIFT);
        Check.same(1L, first.getId());
        Check.same("Swift", first.getName());
        Check.same("SWFT", first.getScac());
        Check.same(true, first.isActive());
        CarrierView second = partners.view(Depot.NORTHLINE);
        Check.same(2L, second.getId());
        Check.same("Northline", second.getName());
        Check.same("NLNE", second.getScac());
        Check.same(false, second.isActive());
    }
}
