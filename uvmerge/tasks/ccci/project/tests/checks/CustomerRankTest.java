package checks;

import warehouse.dto.CustomerRank;
import warehouse.dto.CustomerTier;
import warehouse.service.Customers;

/** The hole {@code customer-rank}. */
public class CustomerRankTest {
    public void test() {
        Customers customers = new Customers();
        CustomerRank first = customers.rank(Depot.ADA);
        Check.same(1L, first.getId());
        Check.same("Lind", first.getFamilyName());
        Check.same(CustomerTier.GOLD, first.getTier());
        CustomerRank second = customers.rank(Depot.RUI);
        Check.same(2L, second.getId());
        Check.same("Reis", second.getFamilyName());
        Check.same(CustomerTier.STANDARD, second.getTier());
    }
}
