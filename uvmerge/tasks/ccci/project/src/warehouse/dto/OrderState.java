package warehouse.dto;

/** How far an order is. */
public class OrderState {
    private String number;
    private OrderStatus status;

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public OrderStatus getStatus() {
        return status;
    }

    public void setStatus(OrderStatus status) {
        this.status = status;
    }
}
