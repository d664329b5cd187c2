package warehouse.dto;

/** What a customer may see of a shipment. */
public class ShipmentTrace {
    private String tracking;
    private String orderNumber;
    private String orderCustomerEmail;

    public String getTracking() {
        return tracking;
    }

    public void setTracking(String tracking) {
        this.tracking = tracking;
    }

    public String getOrderNumber() {
        return orderNumber;
    }

    public void setOrderNumber(String orderNumber) {
        this.orderNumber = orderNumber;
    }

    public String getOrderCustomerEmail() {
        return orderCustomerEmail;
    }

    public void setOrderCustomerEmail(String orderCustomerEmail) {
        this.orderCustomerEmail = orderCustomerEmail;
    }
}
