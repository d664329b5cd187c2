package clinic.service;

import java.util.Map;

import clinic.dto.PrescriptionIssue;
import clinic.dto.PrescriptionRow;
import clinic.dto.PrescriptionSheet;
import clinic.entity.Practitioner;
import clinic.entity.Prescription;
import clinic.entity.Secretary;

/** What patients are given. */
public class Medication {
    private final Map<Long, Secretary> secretaries;
    private final Map<Long, Practitioner> practitioners;

    public Medication(
            Map<Long, Secretary> secretaries, Map<Long, Practitioner> practitioners) {
        this.secretaries = secretaries;
        this.practitioners = practitioners;
    }

    /** Everybody who may be named. */
    public int people() {
        return secretaries.size() + practitioners.size();
    }

    /** A prescription on paper. */
    public PrescriptionSheet sheet(Prescription prescription) {
        PrescriptionSheet sheet = new PrescriptionSheet();
        sheet.setPatientFamilyName(prescription.getPatient().getFamilyName());
        sheet.setDrugName(prescription.getDrug().getName());
        sheet.setDrugForm(prescription.getDrug().getForm());
        sheet.setDose(prescription.getDose());
        return sheet;
    }

    /** Who prescribed what. */
    public PrescriptionIssue issue(Prescription prescription) {
        PrescriptionIssue issue = new PrescriptionIssue();
        issue.setIssuedByDisplayName(
                practitioners.get(prescription.getIssuedBy()).getDisplayName());
        issue.setIssuedBySpecialty(practitioners.get(prescription.getIssuedBy()).getSpecialty());
        issue.setDrugName(prescription.getDrug().getName());
        return issue;
    }

    /** A prescription as the pharmacy reads it. */
    public PrescriptionRow row(Prescription prescription) {
        PrescriptionRow row = new PrescriptionRow();
        row.setId(prescription.getId());
        row.setDrugName(prescription.getDrug().getName());
        row.setRegister("RX-12");
        row.setValidDays(28);
        return row;
    }
}
