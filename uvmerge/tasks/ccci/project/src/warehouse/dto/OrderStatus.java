package warehouse.dto;

import transfer.Coded;

/** How far an order is. */
public enum OrderStatus implements Coded {
    OPEN("O"),
    PACKED("P"),
    SENT("S"),
    CANCELLED("X");

    private final String code;

    OrderStatus(String code) {
        this.code = code;
    }

    @Override
    public String code() {
        return code;
    }
}
