package checks;

import java.util.List;
import java.util.Map;

import clinic.entity.Admission;
import clinic.entity.Appointment;
import clinic.entity.Assay;
import clinic.entity.Contact;
import clinic.entity.Drug;
import clinic.entity.Employer;
import clinic.entity.Insurer;
import clinic.entity.Invoice;
import clinic.entity.InvoiceItem;
import clinic.entity.LabResult;
import clinic.entity.Patient;
import clinic.entity.Practitioner;
import clinic.entity.Prescription;
import clinic.entity.Residence;
import clinic.entity.Room;
import clinic.entity.Secretary;
import clinic.entity.Ward;

/** A small clinic; the same numbers are keys of different things. */
final class Clinic {
    static final Insurer MUTUAL = new Insurer(1, "Mutual", "basic");
    static final Insurer UNION = new Insurer(2, "Union", "full");
    static final Room SOUTH = new Room(1, "R-1", "south room");
    static final Room NORTH = new Room(2, "R-2", "north room");
    static final Drug IRON = new Drug(1, "Iron", "drops", 20);
    static final Drug ZINC = new Drug(2, "Zinc", "tablet", 15);
    static final Patient EVA = new Patient(
            1, "Eva", "Holm", 19800229, "f",
            new Contact("555-1", "eva@x.example", new Residence("Hill 1", "Oslo", "NO")), 2);
    static final Patient TOM = new Patient(
            2, "Tom", "Berg", 20151130, "m",
            new Contact("555-2", "tom@y.example", new Residence("Dale 2", "Bergen", "NO")), 1);
    static final Patient NEW = new Patient(3, "Kim", "Dahl", 19990101, "x", null, 1);
    static final Appointment EARLY = new Appointment(1, EVA, 2, 1, 86_400, "A", 12_050);
    static final Appointment LATE = new Appointment(2, TOM, 1, 2, 770_000_000, "M", 900);
    static final Prescription DROPS = new Prescription(1, EVA, 1, IRON, 3, 20240110);
    static final Prescription TABLET = new Prescription(2, TOM, 2, ZINC, 1, 20240215);
    static final LabResult LOW = new LabResult(1, 2, 1, 4_250, 20240505);
    static final LabResult HIGH = new LabResult(2, 1, 2, 139_500, 20240506);
    static final Invoice LONG = new Invoice(
            1, "IN-1", 2, 45_010, 20240930,
            List.of(new InvoiceItem(1, "visit", 2, 12_050), new InvoiceItem(2, "drug", 1, 20_910)));
    static final Invoice SHORT = new Invoice(
            2, "IN-2", 1, 99, 20241231, List.of(new InvoiceItem(3, "form", 1, 99)));
    static final Admission OVER = new Admission(1, EVA, 1, 2, 20240301, 20240309, "fall");
    static final Admission OPEN = new Admission(2, TOM, 2, 1, 20240302, null, "fever");

    private Clinic() {
    }

    static Map<Long, Insurer> insurers() {
        return Map.of(1L, MUTUAL, 2L, UNION);
    }

    static Map<Long, Employer> employers() {
        return Map.of(1L, new Employer(1, "Yard", "a"), 2L, new Employer(2, "Dock", "b"));
    }

    static Map<Long, Room> rooms() {
        return Map.of(1L, SOUTH, 2L, NORTH);
    }

    static Map<Long, Ward> wards() {
        return Map.of(1L, new Ward(1, "surgery", 3), 2L, new Ward(2, "children", 5));
    }

    static Map<Long, Practitioner> practitioners() {
        return Map.of(
                1L, new Practitioner(1, "Dr Moe", "heart"),
                2L, new Practitioner(2, "Dr Nyl", "skin"));
    }

    static Map<Long, Secretary> secretaries() {
        return Map.of(1L, new Secretary(1, "Ola", "desk"), 2L, new Secretary(2, "Pia", "books"));
    }

    static Map<Long, Assay> assays() {
        return Map.of(1L, new Assay(1, "potassium", "mmol/l"), 2L, new Assay(2, "sodium", "mEq/l"));
    }
}
