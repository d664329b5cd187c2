package warehouse.entity;

/** Parcels of one order under way. */
public class Shipment {
    private long id;
    private String tracking;
    private long partner;
    private long dispatchedAt;
    private long weight;
    private SalesOrder order;

    public Shipment() {
    }

    public Shipment(
            long id, String tracking, long partner, long dispatchedAt, long weight,
            SalesOrder order) {
        this.id = id;
        this.tracking = tracking;
        this.partner = partner;
        this.dispatchedAt = dispatchedAt;
        this.weight = weight;
        this.order = order;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getTracking() {
        return tracking;
    }

    public void setTracking(String tracking) {
        this.tracking = tracking;
    }

    public long getPartner() {
        return partner;
    }

    public void setPartner(long partner) {
        this.partner = partner;
    }

    public long getDispatchedAt() {
        return dispatchedAt;
    }

    public void setDispatchedAt(long dispatchedAt) {
        this.dispatchedAt = dispatchedAt;
    }

    public long getWeight() {
        return weight;
    }

    public void setWeight(long weight) {
        this.weight = weight;
    }

    public SalesOrder getOrder() {
        return order;
    }

    public void setOrder(SalesOrder order) {
        this.order = order;
    }
}
