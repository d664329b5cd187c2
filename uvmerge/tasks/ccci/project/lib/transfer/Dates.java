package transfer;

import java.time.Instant;
import java.time.LocalDate;

/**
 * Days and moments from the numbers that tables hold: a day is like 20240131, a moment is seconds
 * after the start of the year 2000 in UTC.
 */
public final class Dates {
    private Dates() {
    }

    public static LocalDate fromCompact(int number) {
        return LocalDate.of(number / 10_000, number / 100 % 100, number % 100);
    }

    public static int toCompact(LocalDate day) {
        return day.getYear() * 10_000 + day.getMonthValue() * 100 + day.getDayOfMonth();
    }

    public static Instant fromSeconds(long seconds) {
        return Instant.ofEpochSecond(946_684_800L + seconds);
    }
}
