package warehouse.service;

import warehouse.dto.CarrierRow;
import warehouse.dto.CarrierView;
import warehouse.dto.SupplierView;
import warehouse.entity.Carrier;
import warehouse.entity.Supplier;

/** Companies that the house works with, as the screens show them. */
public class Partners {
    /** A carrier on the screen. */
    public CarrierView view(Carrier carrier) {
        CarrierView view = new CarrierView();
        view.setId(carrier.getId());
        view.setName(carrier.getName());
        view.setScac(carrier.getScac());
        view.setActive(carrier.isActive());
        return view;
    }

    /** A carrier in a table. */
    public CarrierRow row(Carrier carrier) {
        return new CarrierRow(carrier.getId(), carrier.getName(), carrier.isActive());
    }

    /** A supplier on the screen; what the screen showed before is replaced. */
    public void show(Supplier supplier, SupplierView view) {
        view.setId(supplier.getId());
        view.setName(supplier.getName());
        view.setCountry(supplier.getCountry());
        view.setRating(supplier.getRating());
    }
}
