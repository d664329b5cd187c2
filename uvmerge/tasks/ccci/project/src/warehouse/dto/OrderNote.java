package warehouse.dto;

/** What the packer has to read. */
public class OrderNote {
    private String number;
    /** {@code nothing noted} where the customer wrote nothing */
    private String note;

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public String getNote() {
        return note;
    }

    public void setNote(String note) {
        this.note = note;
    }
}
