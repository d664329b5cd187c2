package warehouse.dto;

import transfer.Coded;

/** What a customer is entitled to. */
public enum CustomerTier implements Coded {
    STANDARD("N"),
    SILVER("S"),
    GOLD("G");

    private final String code;

    CustomerTier(String code) {
        this.code = code;
    }

    @Override
    public String code() {
        return code;
    }
}
