package clinic.dto;

import transfer.Coded;

/** Sex as laboratories need it. */
public enum Sex implements Coded {
    FEMALE("f"),
    MALE("m"),
    OTHER("x");

    private final String code;

    Sex(String code) {
        this.code = code;
    }

    @Override
    public String code() {
        return code;
    }
}
