package warehouse.service;

import java.util.Map;
import java.util.TreeMap;

import transfer.Codes;
import transfer.Dates;
import transfer.Money;
import warehouse.dto.LineView;
import warehouse.dto.OrderDay;
import warehouse.dto.OrderHead;
import warehouse.dto.OrderNote;
import warehouse.dto.OrderParts;
import warehouse.dto.OrderState;
import warehouse.dto.OrderStatus;
import warehouse.dto.OrderSum;
import warehouse.dto.OrderView;
import warehouse.entity.OrderLine;
import warehouse.entity.SalesOrder;

/** Orders as they are shown and packed. */
public class Orders {
    /** The first lines of an order, for the printer. */
    public OrderHead head(SalesOrder order) {
        OrderHead head = new OrderHead();
        head.setNumber(order.getNumber());
        head.setCustomerEmail(order.getCustomer().getEmail());
        head.setCustomerAddressCity(order.getCustomer().getAddress().getCity());
        head.setNote(order.getNote());
        return head;
    }

    /** An order with all of its lines. */
    public OrderView view(SalesOrder order) {
        OrderView view = new OrderView();
        view.setNumber(order.getNumber());
        for (OrderLine line : order.getLines()) {
            LineView shown = new LineView();
            shown.setItemSku(line.getItem().getSku());
            shown.setItemTitle(line.getItem().getTitle());
            shown.setQuantity(line.getQuantity());
            view.getLines().add(shown);
        }
        return view;
    }

    /** How many pieces of each item are to be picked. */
    public OrderParts parts(SalesOrder order) {
        OrderParts parts = new OrderParts();
        parts.setNumber(order.getNumber());
        Map<String, Integer> pieces = new TreeMap<>();
        for (OrderLine line : order.getLines()) {
            pieces.merge(line.getItem().getSku(), line.getQuantity(), Integer::sum);
        }
        parts.setPieces(pieces);
        return parts;
    }

    /** When an order was placed. */
    public OrderDay day(SalesOrder order) {
        OrderDay day = new OrderDay();
        day.setNumber(order.getNumber());
        day.setPlacedOn(Dates.fromCompact(order.getPlacedOn()));
        return day;
    }

    /** How far an order is. */
    public OrderState state(SalesOrder order) {
        OrderState state = new OrderState();
        state.setNumber(order.getNumber());
        state.setStatus(Codes.decode(OrderStatus.class, order.getStatus()));
        return state;
    }

    /** What the packer has to read. */
    public OrderNote note(SalesOrder order) {
        OrderNote note = new OrderNote();
        note.setNumber(order.getNumber());
        note.setNote(order.getNote() == null ? "nothing noted" : order.getNote());
        return note;
    }

    /** What an order costs: of every line its price times its quantity. */
    public OrderSum sum(SalesOrder order) {
        OrderSum sum = new OrderSum();
        sum.setNumber(order.getNumber());
        Money total = Money.ofMinor(0);
        for (OrderLine line : order.getLines()) {
            total = total.plus(Money.ofMinor(line.getPrice() * line.getQuantity()));
        }
        sum.setTotal(total);
        return sum;
    }
}
