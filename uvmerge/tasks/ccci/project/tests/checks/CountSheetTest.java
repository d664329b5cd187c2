package checks;

import warehouse.dto.CountSheet;
import warehouse.service.Counting;

/** The hole {@code count-sheet}. */
public class CountSheetTest {
    public void test() {
        Counting counting = new Counting(
                Depot.locations(), Depot.areas(), Depot.items(), Depot.employees(),
                Depot.drivers());
        CountSheet first = counting.sheet(Depot.SHELF);
        Check.same("A-77", first.getPlaceCode());
        Check.same("S-300", first.getArticleSku());
        Check.same(118, first.getCounted());
        Check.same("Ida", first.getByDisplayName());
        CountSheet second = counting.sheet(Depot.FLOOR);
        Check.same("A-01", second.getPlaceCode());
        Check.same("R-200", second.getArticleSku());
        Check.same(5, second.getCounted());
        Check.same("Jon", second.getByDisplayName());
    }
}
