package checks;

import clinic.dto.InsurerView;
import clinic.service.Registry;

/** The hole {@code insurer-view}. */
public class InsurerViewTest {
    public void test() {
        Registry registry = new Registry();
        InsurerView first = registry.view(Clinic.MUTUAL);
        Check.same(1L, first.getId());
        Check.same("Mutual", first.getName());
        Check.same("basic", first.getPlan());
        InsurerView second = registry.view(Clinic.UNION);
        Check.same(2L, second.getId());
        Check.same("Union", second.getName());
        Check.same("full", second.getPlan());
    }
}
