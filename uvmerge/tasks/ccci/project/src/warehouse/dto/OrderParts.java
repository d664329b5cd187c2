package warehouse.dto;

import java.util.Map;

/** How many pieces of each item an order needs. */
public class OrderParts {
    private String number;
    /** by stock keeping unit, an item of two lines once */
    private Map<String, Integer> pieces;

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public Map<String, Integer> getPieces() {
        return pieces;
    }

    public void setPieces(Map<String, Integer> pieces) {
        this.pieces = pieces;
    }
}
