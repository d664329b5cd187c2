package checks;

import java.time.LocalDate;

import warehouse.dto.CountAudit;
import warehouse.service.Audit;

/** The hole {@code count-audit}. */
public class CountAuditTest {
    public void test() {
        Audit audit = new Audit(Depot.items(), Depot.drivers(), Depot.employees());
        CountAudit first = audit.audit(Depot.SHELF);
        Check.same(1L, first.getId());
        Check.same("E-1", first.getByBadge());
        Check.same("Soap", first.getArticleTitle());
        Check.same(LocalDate.of(2024, 6, 30), first.getCountedOn());
        CountAudit second = audit.audit(Depot.FLOOR);
        Check.same(2L, second.getId());
        Check.same("E-2", second.getByBadge());
        Check.same("Rope", second.getArticleTitle());
        Check.same(LocalDate.of(2024, 7, 1), second.getCountedOn());
    }
}
