package clinic.service;

import java.util.Map;

import clinic.dto.PatientAge;
import clinic.dto.PatientBed;
import clinic.dto.PatientCard;
import clinic.dto.PatientLetter;
import clinic.dto.PatientPhone;
import clinic.dto.PatientSex;
import clinic.dto.Sex;
import clinic.entity.Contact;
import clinic.entity.Patient;
import clinic.entity.Room;
import clinic.entity.Ward;
import transfer.Codes;
import transfer.Dates;

/** Patients as the desk needs them. */
public class Patients {
    private final Map<Long, Room> rooms;
    private final Map<Long, Ward> wards;

    public Patients(Map<Long, Room> rooms, Map<Long, Ward> wards) {
        this.rooms = rooms;
        this.wards = wards;
    }

    /** Where patients may be. */
    public int places() {
        return rooms.size() + wards.size();
    }

    /** A patient at the desk. */
    public PatientCard card(Patient patient) {
        PatientCard card = new PatientCard();
        card.setGivenName(patient.getGivenName());
        card.setFamilyName(patient.getFamilyName());
        card.setContactPhone(patient.getContact().getPhone());
        card.setContactEmail(patient.getContact().getEmail());
        return card;
    }

    /** The head of a letter to a patient. */
    public PatientLetter letter(Patient patient) {
        PatientLetter letter = new PatientLetter();
        letter.setFamilyName(patient.getFamilyName());
        letter.setContactResidenceStreet(patient.getContact().getResidence().getStreet());
        letter.setContactResidenceCity(patient.getContact().getResidence().getCity());
        return letter;
    }

    /** How old a patient is. */
    public PatientAge age(Patient patient) {
        PatientAge age = new PatientAge();
        age.setFamilyName(patient.getFamilyName());
        age.setBorn(Dates.fromCompact(patient.getBorn()));
        return age;
    }

    /** Which ranges of the laboratory hold. */
    public PatientSex sex(Patient patient) {
        PatientSex found = new PatientSex();
        found.setFamilyName(patient.getFamilyName());
        found.setSex(Codes.decode(Sex.class, patient.getSex()));
        return found;
    }

    /** Whom the desk calls. */
    public PatientPhone phone(Patient patient) {
        PatientPhone found = new PatientPhone();
        found.setFamilyName(patient.getFamilyName());
        Contact contact = patient.getContact();
        found.setPhone(contact == null ? "ask at desk" : contact.getPhone());
        return found;
    }

    /** Where a patient lies. */
    public PatientBed bed(Patient patient) {
        PatientBed bed = new PatientBed();
        bed.setFamilyName(patient.getFamilyName());
        bed.setWardTitle(wards.get(patient.getWard()).getTitle());
        bed.setWardFloor(wards.get(patient.getWard()).getFloor());
        return bed;
    }
}
