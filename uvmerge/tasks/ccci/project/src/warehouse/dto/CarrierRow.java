package warehouse.dto;

/** A carrier in a table. */
public record CarrierRow(long id, String name, boolean active) {
}
