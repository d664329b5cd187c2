package clinic.dto;

/** The first segment of a message to another clinic. */
public class MessageHeader {
    private long id;
    /** always {@code CLN-NORTH} */
    private String sender;
    /** always {@code 2.5.1} */
    private String version;

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getSender() {
        return sender;
    }

    public void setSender(String sender) {
        this.sender = sender;
    }

    public String getVersion() {
        return version;
    }

    public void setVersion(String version) {
        this.version = version;
    }
}
