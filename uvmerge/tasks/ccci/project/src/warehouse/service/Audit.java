package warehouse.service;

import java.util.Map;

import transfer.Dates;
import warehouse.dto.CountAudit;
import warehouse.entity.Driver;
import warehouse.entity.Employee;
import warehouse.entity.Item;
import warehouse.entity.StockCount;

/** Counts as the auditors read them. */
public class Audit {
    private final Map<Long, Item> items;
    private final Map<Long, Driver> drivers;
    private final Map<Long, Employee> employees;

    public Audit(Map<Long, Item> items, Map<Long, Driver> drivers, Map<Long, Employee> employees) {
        this.items = items;
        this.drivers = drivers;
        this.employees = employees;
    }

    /** Everybody who may be named. */
    public int people() {
        return drivers.size() + employees.size() + items.size();
    }

    /** One count. */
    public CountAudit audit(StockCount count) {
        CountAudit audit = new CountAudit();
        audit.setId(count.getId());
        audit.setByBadge(employees.get(count.getBy()).getBadge());
        audit.setArticleTitle(items.get(count.getArticle()).getTitle());
        audit.setCountedOn(Dates.fromCompact(count.getCountedOn()));
        return audit;
    }
}
