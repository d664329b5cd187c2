package checks;

import warehouse.dto.CarrierRow;
import warehouse.service.Partners;

/** The hole {@code carrier-row}. */
public class CarrierRowTest {
    public void test() {
        Partners partners = new Partners();
        CarrierRow first = partners.row(Depot.SWIFT);
        Check.same(1L, first.id());
        Check.same("Swift", first.name());
        Check.same(true, first.active());
        CarrierRow second = partners.row(Depot.NORTHLINE);
        Check.same(2L, second.id());
        Check.same("Northline", second.name());
        Check.same(false, second.active());
    }
}
