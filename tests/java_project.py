"""A small Java project with a hole, tables and a library, for tests of the packer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MAPPER = "src/shop/map/OrderMapper.java"
FILES = {
    "src/shop/model/Order.java": """package shop.model;
import java.time.LocalDate;
import java.util.List;
/** An order. */
@Entity @Table(name = "orders")
public class Order extends Thing<Long> {
  @Column(name = "order_no") private String number;
  private Long customerId;
  private Address address;
  private List<OrderLine> lines;
  private Status status; // open or paid
  private long totalCents;
  private gen.Unknown made;
  public String getNumber() { return number; }
  public Long getCustomerId() { return customerId; }
  public Address getAddress() { return address; }
  public List<OrderLine> getLines() { return lines; }
  public Status getStatus() { return status; }
  public long getTotalCents() { return totalCents; }
}
""",
    "src/shop/model/Parts.java": """package shop.model;
abstract class Thing<K> { K id; public K getId() { return id; } }
class OrderLine { private String sku; private int quantity;
  public String getSku() { return sku; } public int getQuantity() { return quantity; } }
class Address { private String city; public String getCity() { return city; } }
enum Status { OPEN, PAID }
""",
    "src/shop/model/Customer.java": """package shop.model;
public class Customer { private Long id; private String name; public String getName() { return name; } }
""",
    "src/shop/repo/Customers.java": """package shop.repo;
import shop.model.Customer;
public interface Customers { Customer findById(Long id); }
""",
    "src/shop/dto/OrderDto.java": """package shop.dto;
import java.util.List;
import money.Money;
public class OrderDto {
  private String number;
  private String customerName;
  private String addressCity;
  private List<LineDto> lines;
  private String status;
  private Money totalCents;
  /** always {@code SHOP} */
  private String channel;
  public void setNumber(String it) {}
  public void setCustomerName(String it) {}
  public void setAddressCity(String it) {}
  public void setLines(List<LineDto> it) {}
  public void setStatus(String it) {}
  public void setTotalCents(Money it) {}
  public void setChannel(String it) {}
}
""",
    "src/shop/dto/LineDto.java": "package shop.dto;\npublic record LineDto(String sku, int quantity) {}\n",
    MAPPER: """package shop.map;
import java.util.List;
import shop.dto.OrderDto;
import shop.model.Order;
import shop.repo.Customers;
public class OrderMapper {
  private final Customers customers;
  OrderMapper(Customers customers) { this.customers = customers; }
  /** Fills what is shown. */
  public OrderDto toDto(Order order) {
    OrderDto dto = new OrderDto();
    // every field
    /*HOLE*/
    return dto;
  }
}
""",
    "lib/money/Money.java": """package money;
public final class Money {
  /** Of hundredths. */
  public static Money ofCents(long cents) { return null; }
  private Money() {}
}
""",
    "schema.sql": """CREATE TABLE customers (id BIGINT PRIMARY KEY, name VARCHAR(100) NOT NULL);
FROBNICATE everything;
CREATE TABLE orders (
  id BIGINT PRIMARY KEY,
  order_no VARCHAR(20) DEFAULT 'a;b',
  customer_id BIGINT NOT NULL REFERENCES customers, -- who pays
  total_cents BIGINT
);
""",
}


def write(folder: Path, files: Mapping[str, str] = FILES) -> Path:
    """Write files below a folder; returns the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def filled(code: str) -> str:
    """A class with a method in which code stands."""
    return f"class A {{\n  void f(B b, C c) {{\n    {code}\n  }}\n}}\n"
