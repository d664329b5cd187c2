package transfer;

import java.time.Instant;
import java.time.LocalDate;

/** Days and moments from the numbers that tables hold. */
public final class Dates {
    private Dates() {
    }

    /** The day of a number like 20240131. */
    public static LocalDate fromCompact(int number) {
        return LocalDate.of(number / 10_000, number / 100 % 100, number % 100);
    }

    /** The number of a day, like 20240131. */
    public static int toCompact(LocalDate day) {
        return day.getYear() * 10_000 + day.getMonthValue() * 100 + day.getDayOfMonth();
    }

    /** The moment that is so many seconds after the start of the year 2000 in UTC. */
    public static Instant fromSeconds(long seconds) {
        return Instant.ofEpochSecond(946_684_800L + seconds);
    }
}
