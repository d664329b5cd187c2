package clinic.dto;

/** The head of a claim. */
public class ClaimHeader {
    private String number;
    /** always {@code UB-04} */
    private String form;
    private String account;

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public String getForm() {
        return form;
    }

    public void setForm(String form) {
        this.form = form;
    }

    public String getAccount() {
        return account;
    }

    public void setAccount(String account) {
        this.account = account;
    }
}
