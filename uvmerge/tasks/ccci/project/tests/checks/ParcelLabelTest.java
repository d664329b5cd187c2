package checks;

import warehouse.dto.ParcelLabel;
import warehouse.service.Shipments;

/** The hole {@code parcel-label}. */
public class ParcelLabelTest {
    public void test() {
        Shipments shipments = new Shipments(Depot.carriers(), Depot.suppliers());
        ParcelLabel first = shipments.label(Depot.FIRST);
        Check.same("T-1", first.getTracking());
        Check.same("OVERNIGHT-2", first.getService());
        Check.same(3, first.getCopies());
        ParcelLabel second = shipments.label(Depot.SECOND);
        Check.same("T-2", second.getTracking());
        Check.same("OVERNIGHT-2", second.getService());
        Check.same(3, second.getCopies());
    }
}
