package checks;

import warehouse.dto.LocationView;
import warehouse.service.Places;

/** The hole {@code location-view}. */
public class LocationViewTest {
    public void test() {
        Places places = new Places(Depot.locations(), Depot.areas());
        LocationView first = places.view(Depot.LOW);
        Check.same("A-01", first.getCode());
        Check.same("Z-D", first.getZoneCode());
        Check.same("dry", first.getZoneLabel());
        LocationView second = places.view(Depot.HIGH);
        Check.same("A-77", second.getCode());
        Check.same("Z-C", second.getZoneCode());
        Check.same("cold", second.getZoneLabel());
    }
}
