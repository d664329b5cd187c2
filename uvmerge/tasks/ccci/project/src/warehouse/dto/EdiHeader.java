package warehouse.dto;

/** The first segment of a message to a partner. */
public class EdiHeader {
    private String number;
    /** always {@code EDI-7} */
    private String channel;
    /** always {@code D96A} */
    private String version;

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public String getChannel() {
        return channel;
    }

    public void setChannel(String channel) {
        this.channel = channel;
    }

    public String getVersion() {
        return version;
    }

    public void setVersion(String version) {
        this.version = version;
    }
}
