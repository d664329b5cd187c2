package transfer;

/** Constants from the codes that tables hold; null from null. */
public final class Codes {
    private Codes() {
    }

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
