package checks;

import java.util.Objects;

/** Comparisons that fail with both values. */
final class Check {
    private Check() {
    }

    static void same(Object expected, Object actual) {
        if (!Objects.equals(expected, actual)) {
            throw new AssertionError("expected " + expected + ", found " + actual);
        }
    }
}
