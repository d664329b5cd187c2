package warehouse.dto;

import java.time.LocalDate;

/** A count in a table. */
public record CountRow(long id, int counted, LocalDate countedOn) {
}
