package checks;

import warehouse.dto.ExportRow;
import warehouse.service.Exchange;

/** The hole {@code export-row}. */
public class ExportRowTest {
    public void test() {
        Exchange exchange = new Exchange(Depot.carriers(), Depot.suppliers());
        ExportRow first = exchange.row(Depot.LARGE);
        Check.same("SO-1", first.getNumber());
        Check.same("DEPOT-WEST", first.getSource());
        Check.same("ring twice", first.getNote());
        ExportRow second = exchange.row(Depot.SMALL);
        Check.same("SO-2", second.getNumber());
        Check.same("DEPOT-WEST", second.getSource());
        Check.same(null, second.getNote());
    }
}
