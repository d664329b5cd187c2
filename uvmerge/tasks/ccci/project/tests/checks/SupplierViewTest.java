package checks;

import warehouse.dto.SupplierView;
import warehouse.service.Partners;

/** The hole {@code supplier-view}. */
public class SupplierViewTest {
    public void test() {
        SupplierView view = new SupplierView();
        new Partners().show(Depot.ALDER, view);
        Check.same(1L, view.getId());
        Check.same("Alder", view.getName());
        Check.same("SE", view.getCountry());
        Check.same(4, view.getRating());
        new Partners().show(Depot.BIRCH, view);
        Check.same(2L, view.getId());
        Check.same("Birch", view.getName());
        Check.same("PT", view.getCountry());
        Check.same(2, view.getRating());
    }
}
