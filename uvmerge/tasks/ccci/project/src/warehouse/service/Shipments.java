package warehouse.service;

import java.util.Map;

import transfer.Dates;
import transfer.Weight;
import warehouse.dto.ParcelLabel;
import warehouse.dto.ShipmentOrder;
import warehouse.dto.ShipmentTrace;
import warehouse.dto.ShipmentView;
import warehouse.entity.Carrier;
import warehouse.entity.Shipment;
import warehouse.entity.Supplier;

/** Parcels under way. */
public class Shipments {
    private final Map<Long, Carrier> carriers;
    private final Map<Long, Supplier> suppliers;

    public Shipments(Map<Long, Carrier> carriers, Map<Long, Supplier> suppliers) {
        this.carriers = carriers;
        this.suppliers = suppliers;
    }

    /** How many companies can be looked up. */
    public int known() {
        return carriers.size() + suppliers.size();
    }

    /** What a customer may see. */
    public ShipmentTrace trace(Shipment shipment) {
        ShipmentTrace trace = new ShipmentTrace();
        trace.setTracking(shipment.getTracking());
        trace.setOrderNumber(shipment.getOrder().getNumber());
        trace.setOrderCustomerEmail(shipment.getOrder().getCustomer().getEmail());
        return trace;
    }

    /** A shipment on the screen of the dispatcher. */
    public ShipmentView view(Shipment shipment) {
        ShipmentView view = new ShipmentView();
        view.setTracking(shipment.getTracking());
        view.setPartnerName(carriers.get(shipment.getPartner()).getName());
        view.setWeight(Weight.ofGrams(shipment.getWeight()));
        view.setDispatchedAt(Dates.fromSeconds(shipment.getDispatchedAt()));
        return view;
    }

    /** Which order a shipment is of; a sample is of none. */
    public ShipmentOrder order(Shipment shipment) {
        ShipmentOrder found = new ShipmentOrder();
        found.setTracking(shipment.getTracking());
        if (shipment.getOrder() != null) {
            found.setOrderNumber(shipment.getOrder().getNumber());
            found.setOrderNote(shipment.getOrder().getNote());
        }
        return found;
    }

    /** The sticker of a parcel. */
    public ParcelLabel label(Shipment shipment) {
        ParcelLabel label = new ParcelLabel();
        label.setTracking(shipment.getTracking());
        label.setService("OVERNIGHT-2");
        label.setCopies(3);
        return label;
    }
}
