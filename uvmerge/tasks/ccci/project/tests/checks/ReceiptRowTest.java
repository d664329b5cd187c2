package checks;

import warehouse.dto.ReceiptRow;
import warehouse.service.Exchange;

/** The hole {@code receipt-row}. */
public class ReceiptRowTest {
    public void test() {
        Exchange exchange = new Exchange(Depot.carriers(), Depot.suppliers());
        ReceiptRow first = exchange.row(Depot.MORNING);
        Check.same(1L, first.getId());
        Check.same("Birch", first.getPartnerName());
        Check.same("GR-4100", first.getLedger());
        Check.same(40, first.getQuantity());
        ReceiptRow second = exchange.row(Depot.EVENING);
        Check.same(2L, second.getId());
        Check.same("Alder", second.getPartnerName());
        Check.same("GR-4100", second.getLedger());
        Check.same(7, second.getQuantity());
    }
}
