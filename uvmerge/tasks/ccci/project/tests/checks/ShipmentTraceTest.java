package checks;

import warehouse.dto.ShipmentTrace;
import warehouse.service.Shipments;

/** The hole {@code shipment-trace}. */
public class ShipmentTraceTest {
    public void test() {
        Shipments shipments = new Shipments(Depot.carriers(), Depot.suppliers());
        ShipmentTrace first = shipments.trace(Depot.FIRST);
        Check.same("T-1", first.getTracking());
        Check.same("SO-1", first.getOrderNumber());
        Check.same("ada@x.example", first.getOrderCustomerEmail());
        ShipmentTrace second = shipments.trace(Depot.SECOND);
        Check.same("T-2", second.getTracking());
        Check.same("SO-2", second.getOrderNumber());
        Check.same("rui@y.example", second.getOrderCustomerEmail());
    }
}
