package clinic.dto;

/** A drug in a table. */
public record DrugRow(String name, String form, int strength) {
}
