package warehouse.dto;

/** What the packer has to read. */
public class OrderNote {
    private String number;
    /** {@code none} where nothing was written */
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
