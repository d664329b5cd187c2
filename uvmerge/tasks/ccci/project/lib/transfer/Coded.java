package transfer;

/** A constant that is kept as a short code. */
public interface Coded {
    String code();
}
