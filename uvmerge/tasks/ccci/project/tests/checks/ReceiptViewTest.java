package checks;

import java.time.LocalDate;

import warehouse.dto.ReceiptView;
import warehouse.service.Receiving;

/** The hole {@code receipt-view}. */
public class ReceiptViewTest {
    public void test() {
        Receiving receiving = new Receiving(
                Depot.carriers(), Depot.suppliers(), Depot.locations(), Depot.areas());
        ReceiptView first = receiving.view(Depot.MORNING);
        Check.same(1L, first.getId());
        Check.same("Birch", first.getPartnerName());
        Check.same(LocalDate.of(2024, 2, 29), first.getReceivedOn());
        Check.same(40, first.getQuantity());
        ReceiptView second = receiving.view(Depot.EVENING);
        Check.same(2L, second.getId());
        Check.same("Alder", second.getPartnerName());
        Check.same(LocalDate.of(2023, 11, 1), second.getReceivedOn());
        Check.same(7, second.getQuantity());
    }
}
