package checks;

import java.time.Instant;

import transfer.Weight;
import warehouse.dto.ShipmentView;
import warehouse.service.Shipments;

/** The hole {@code shipment-view}. */
public class ShipmentViewTest {
    public void test() {
        Shipments shipments = new Shipments(Depot.carriers(), Depot.suppliers());
        ShipmentView first = shipments.view(Depot.FIRST);
        Check.same("T-1", first.getTracking());
        Check.same("Northline", first.getPartnerName());
        Check.same(Weight.ofGrams(9_300), first.getWeight());
        Check.same(Instant.ofEpochSecond(946771200L), first.getDispatchedAt());
        ShipmentView second = shipments.view(Depot.SECOND);
        Check.same("T-2", second.getTracking());
        Check.same("Swift", second.getPartnerName());
        Check.same(Weight.ofGrams(41), second.getWeight());
        Check.same(Instant.ofEpochSecond(1706684800L), second.getDispatchedAt());
    }
}
