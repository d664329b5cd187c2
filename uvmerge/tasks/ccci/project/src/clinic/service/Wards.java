package clinic.service;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import clinic.dto.BoardRow;
import clinic.dto.RoundRow;
import clinic.dto.Stay;
import clinic.entity.Admission;
import clinic.entity.Practitioner;
import clinic.entity.Room;
import clinic.entity.Secretary;
import clinic.entity.Ward;
import transfer.Dates;

/** Patients who stay. */
public class Wards {
    private final Map<Long, Room> rooms;
    private final Map<Long, Ward> wards;
    private final Map<Long, Secretary> secretaries;
    private final Map<Long, Practitioner> practitioners;

    public Wards(
            Map<Long, Room> rooms, Map<Long, Ward> wards, Map<Long, Secretary> secretaries,
            Map<Long, Practitioner> practitioners) {
        this.rooms = rooms;
        this.wards = wards;
        this.secretaries = secretaries;
        this.practitioners = practitioners;
    }

    /** How much can be looked up. */
    public int known() {
        return rooms.size() + wards.size() + secretaries.size() + practitioners.size();
    }

    /** The list of a ward round. */
    public List<RoundRow> round(List<Admission> admissions) {
        List<RoundRow> rows = new ArrayList<>();
        for (Admission admission : admissions) {
            RoundRow row = new RoundRow();
            row.setPatientFamilyName(admission.getPatient().getFamilyName());
            row.setReason(admission.getReason());
            rows.add(row);
        }
        return rows;
    }

    /** The row of a patient on the board. */
    public BoardRow board(Admission admission) {
        BoardRow row = new BoardRow();
        row.setPatientFamilyName(admission.getPatient().getFamilyName());
        row.setStationTitle(wards.get(admission.getStation()).getTitle());
        row.setAttendingDisplayName(
                practitioners.get(admission.getAttending()).getDisplayName());
        row.setAdmittedOn(Dates.fromCompact(admission.getAdmittedOn()));
        return row;
    }

    /** How long a patient stayed; of one who is still there the end is left open. */
    public Stay stay(Admission admission) {
        Stay stay = new Stay();
        stay.setId(admission.getId());
        stay.setAdmittedOn(Dates.fromCompact(admission.getAdmittedOn()));
        if (admission.getDischargedOn() != null) {
            stay.setDischargedOn(Dates.fromCompact(admission.getDischargedOn()));
        }
        return stay;
    }
}
