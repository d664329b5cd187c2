package warehouse.entity;

/** Goods that came in. */
public class Receipt {
    private long id;
    private long partner;
    private int receivedOn;
    private long dock;
    private int quantity;
    private String remark;

    public Receipt() {
    }

    public Receipt(
            long id, long partner, int receivedOn, long dock, int quantity, String remark) {
        this.id = id;
        this.partner = partner;
        this.receivedOn = receivedOn;
        this.dock = dock;
        this.quantity = quantity;
        this.remark = remark;
    }

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public long getPartner() {
        return partner;
    }

    public void setPartner(long partner) {
        this.partner = partner;
    }

    public int getReceivedOn() {
        return receivedOn;
    }

    public void setReceivedOn(int receivedOn) {
        this.receivedOn = receivedOn;
    }

    public long getDock() {
        return dock;
    }

    public void setDock(long dock) {
        this.dock = dock;
    }

    public int getQuantity() {
        return quantity;
    }

    public void setQuantity(int quantity) {
        this.quantity = quantity;
    }

    public String getRemark() {
        return remark;
    }

    public void setRemark(String remark) {
        this.remark = remark;
    }
}
