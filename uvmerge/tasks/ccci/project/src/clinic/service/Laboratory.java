package clinic.service;

import java.util.Map;

import clinic.dto.LabReport;
import clinic.dto.LabValue;
import clinic.entity.Assay;
import clinic.entity.LabResult;
import clinic.entity.Practitioner;
import clinic.entity.Secretary;
import transfer.Dates;

/** Measured values. */
public class Laboratory {
    private final Map<Long, Secretary> secretaries;
    private final Map<Long, Practitioner> practitioners;
    private final Map<Long, Assay> assays;

    public Laboratory(
            Map<Long, Secretary> secretaries, Map<Long, Practitioner> practitioners,
            Map<Long, Assay> assays) {
        this.secretaries = secretaries;
        this.practitioners = practitioners;
        this.assays = assays;
    }

    /** How much can be looked up. */
    public int known() {
        return secretaries.size() + practitioners.size() + assays.size();
    }

    /** A value as a doctor reads it. */
    public LabReport report(LabResult result) {
        LabReport report = new LabReport();
        report.setSampledByDisplayName(
                practitioners.get(result.getSampledBy()).getDisplayName());
        report.setTestTitle(assays.get(result.getTest()).getTitle());
        report.setTestUnit(assays.get(result.getTest()).getUnit());
        report.setSampledOn(Dates.fromCompact(result.getSampledOn()));
        return report;
    }

    /** A value as a chart shows it. */
    public LabValue value(LabResult result) {
        LabValue value = new LabValue();
        value.setId(result.getId());
        value.setValue(result.getReading() / 1000.0);
        return value;
    }
}
