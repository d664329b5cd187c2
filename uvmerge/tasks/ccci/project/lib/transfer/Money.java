package transfer;

import java.math.BigDecimal;

/** An amount of the currency of the house; tables hold hundredths of it. */
public final class Money {
    private final long minor;

    private Money(long minor) {
        this.minor = minor;
    }

    public static Money ofMinor(long minor) {
        return new Money(minor);
    }

    public long minor() {
        return minor;
    }

    public Money plus(Money other) {
        return new Money(Math.addExact(minor, other.minor));
    }

    public BigDecimal decimal() {
        return BigDecimal.valueOf(minor, 2);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Money && ((Money) other).minor == minor;
    }

    @Override
    public int hashCode() {
        return Long.hashCode(minor);
    }

    @Override
    public String toString() {
        return decimal().toPlainString();
    }
}
