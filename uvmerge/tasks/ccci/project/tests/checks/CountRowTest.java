package checks;

import java.time.LocalDate;

import warehouse.dto.CountRow;
import warehouse.service.Counting;

/** The hole {@code count-row}. */
public class CountRowTest {
    public void test() {
        Counting counting = new Counting(
                Depot.locations(), Depot.areas(), Depot.items(), Depot.employees(),
                Depot.drivers());
        CountRow first = counting.row(Depot.SHELF);
        Check.same(1L, first.id());
        Check.same(118, first.counted());
        Check.same(LocalDate.of(2024, 6, 30), first.countedOn());
        CountRow second = counting.row(Depot.FLOOR);
        Check.same(2L, second.id());
        Check.same(5, second.counted());
        Check.same(LocalDate.of(2024, 7, 1), second.countedOn());
    }
}
