package checks;

import clinic.dto.DrugRow;
import clinic.service.Registry;

/** The hole {@code drug-row}. */
public class DrugRowTest {
    public void test() {
        Registry registry = new Registry();
        DrugRow first = registry.row(Clinic.IRON);
        Check.same("Iron", first.name());
        Check.same("drops", first.form());
        Check.same(20, first.strength());
        DrugRow second = registry.row(Clinic.ZINC);
        Check.same("Zinc", second.name());
        Check.same("tablet", second.form());
        Check.same(15, second.strength());
    }
}
