package checks;

import warehouse.dto.EdiHeader;
import warehouse.service.Exchange;

/** The hole {@code edi-header}. */
public class EdiHeaderTest {
    public void test() {
        Exchange exchange = new Exchange(Depot.carriers(), Depot.suppliers());
        EdiHeader first = exchange.header(Depot.LARGE);
        Check.same("SO-1", first.getNumber());
        Check.same("EDI-7", first.getChannel());
        Check.same("D96A", first.getVersion());
        EdiHeader second = exchange.header(Depot.SMALL);
        Check.same("SO-2", second.getNumber());
        Check.same("EDI-7", second.getChannel());
        Check.same("D96A", second.getVersion());
    }
}
