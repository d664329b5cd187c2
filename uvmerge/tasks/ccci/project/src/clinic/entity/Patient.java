package clinic.entity;

import transfer.Table;

/** Somebody who is treated. */
@Table("patients")
public class Patient extends Person {
    private int born;
    private String sex;
    private Contact contact;
    private long ward;

    public Patient() {
    }

    public Patient(
            long id, String givenName, String familyName, int born, String sex, Contact contact,
            long ward) {
        super(id, givenName, familyName);
        this.born = born;
        this.sex = sex;
        this.contact = contact;
        this.ward = ward;
    }

    public int getBorn() {
        return born;
    }

    public void setBorn(int born) {
        this.born = born;
    }

    public String getSex() {
        return sex;
    }

    public void setSex(String sex) {
        this.sex = sex;
    }

    public Contact getContact() {
        return contact;
    }

    public void setContact(Contact contact) {
        this.contact = contact;
    }

    public long getWard() {
        return ward;
    }

    public void setWard(long ward) {
        this.ward = ward;
    }
}
