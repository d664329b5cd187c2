package checks;

import warehouse.dto.ShipmentOrder;
import warehouse.entity.Shipment;
import warehouse.service.Shipments;

/** The hole {@code shipment-order}. */
public class ShipmentOrderTest {
    public void test() {
        Shipments shipments = new Shipments(Depot.carriers(), Depot.suppliers());
        ShipmentOrder first = shipments.order(Depot.FIRST);
        Check.same("T-1", first.getTracking());
        Check.same("SO-1", first.getOrderNumber());
        Check.same("ring twice", first.getOrderNote());
        ShipmentOrder second = shipments.order(new Shipment(9, "T-9", 1, 5, 6, null));
        Check.same("T-9", second.getTracking());
        Check.same(null, second.getOrderNumber());
        Check.same(null, second.getOrderNote());
    }
}
