package transfer;

/** Constants from their codes. */
public final class Codes {
    private Codes() {
    }

    /** The constant with a code; null for null. */
    public static <E extends Enum<E> & Coded> E decode(Class<E> type, String code) {
        if (code == null) {
            return null;
        }
        for (E constant : type.getEnumConstants()) {
            if (constant.code().equals(code)) {
                return constant;
            }
        }
        throw new IllegalArgumentException(type.getSimpleName() + " has no code " + code);
    }
}
