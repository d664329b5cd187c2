package warehouse.dto;

import java.util.ArrayList;
import java.util.List;

/** An order on the screen. */
public class OrderView {
    private String number;
    private List<LineView> lines = new ArrayList<>();

    public String getNumber() {
        return number;
    }

    public void setNumber(String number) {
        this.number = number;
    }

    public List<LineView> getLines() {
        return lines;
    }

    public void setLines(List<LineView> lines) {
        this.lines = lines;
    }
}
