package warehouse.dto;

/** The sticker on a parcel. */
public class ParcelLabel {
    private String tracking;
    /** always {@code OVERNIGHT-2} */
    private String service;
    /** always {@code 3} */
    private int copies;

    public String getTracking() {
        return tracking;
    }

    public void setTracking(String tracking) {
        this.tracking = tracking;
    }

    public String getService() {
        return service;
    }

    public void setService(String service) {
        this.service = service;
    }

    public int getCopies() {
        return copies;
    }

    public void setCopies(int copies) {
        this.copies = copies;
    }
}
