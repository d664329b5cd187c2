package transfer;

import java.math.BigDecimal;

/** What something weighs; tables hold grams. */
public final class Weight {
    private final long grams;

    private Weight(long grams) {
        this.grams = grams;
    }

    public static Weight ofGrams(long grams) {
        return new Weight(grams);
    }

    public long grams() {
        return grams;
    }

    public BigDecimal kilograms() {
        return BigDecimal.valueOf(grams, 3);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Weight && ((Weight) other).grams == grams;
    }

    @Override
    public int hashCode() {
        return Long.hashCode(grams);
    }

    @Override
    public String toString() {
        return kilograms().toPlainString() + " kg";
    }
}
