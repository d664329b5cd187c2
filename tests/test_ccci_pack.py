"""The packer: six kinds of context of a hole, reached, ranked, and within a budget."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import java_project
import pytest
from command import uv
from java_project import MAPPER, filled, write

import uvmerge
from uvmerge.tasks.ccci import KINDS, Pack, Place, open_index, pack
from uvmerge.tasks.ccci.task import count_tokens


def packed(folder: Path, **options: object) -> Pack:
    found = {"schema": [folder / "schema.sql"], "classpath": [folder / "lib"], **options}
    return pack(folder / MAPPER, **found)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def whole(project: Path) -> Pack:
    return packed(project)


def texts(found: Pack, kind: str) -> list[str]:
    return [piece.text for piece in found.pieces if piece.kind == kind]


def test_scope_tells_the_method_the_hole_and_each_variable(whole: Pack) -> None:
    assert texts(whole, "scope") == [
        "// method of OrderMapper: OrderDto toDto(Order order)",
        "// hole: statements",
        "OrderDto dto; // local",
        "Order order; // parameter",
        "Customers customers; // field",
    ]


def test_tables_have_types_keys_and_what_a_foreign_key_points_to(whole: Pack) -> None:
    orders, customers = texts(whole, "tables")
    assert "  customer_id BIGINT not null\n" in orders
    assert "  foreign key (customer_id) references customers (id)\n" in orders
    assert "  id BIGINT primary key\n  name VARCHAR(100) not null\n" in customers
    assert [note for note in whole.notes if "not understood" in note] == [
        "schema.sql:2: statement not understood, left out: FROBNICATE everything"
    ]


def test_objects_have_fields_constructors_accessors_generics_and_parents(whole: Pack) -> None:
    found = {text.split("\n")[0]: text for text in texts(whole, "objects")}
    order = found["package shop.model; @Entity @Table class Order extends Thing<Long> {"]
    assert "  private Long customerId; // getCustomerId\n" in order
    assert "package shop.dto; record LineDto(String sku, int quantity) {" in found
    assert "  OPEN, PAID;\n" in found["package shop.model; enum Status {"]
    thing = found["package shop.model; class Thing<K> {"]
    assert "  K id;\n" in thing and "  K getId();\n" in thing
    assert (
        "  OrderMapper(Customers customers) {}\n" in found["package shop.map; class OrderMapper {"]
    )


def test_relations_lead_to_objects_and_tables_and_say_by_which_rule(whole: Pack) -> None:
    found = texts(whole, "relations")
    assert "Order.address -> one Address (by field)" in found
    assert "Order.lines -> many OrderLine (by field List<OrderLine>)" in found
    assert (
        "Order -> table orders (by @Table): number = order_no (by @Column), customerId = customer_id,"
        " totalCents = total_cents" in found
    )
    assert "Customer -> table customers (by name): id, name" in found


def test_libraries_have_signatures_and_name_what_is_unknown(whole: Pack) -> None:
    assert texts(whole, "libraries") == [
        "package money; class Money {\n  static Money ofCents(long cents);\n}",
        "// unknown type gen.Unknown: not in the project or on the class path",
    ]


def test_comments_are_of_the_method_the_hole_members_and_columns(whole: Pack) -> None:
    found = texts(whole, "comments")
    assert found[:2] == ['method toDto: "Fills what is shown."', 'above the hole: "every field"']
    assert 'OrderDto.channel: "always {@code SHOP}"' in found
    assert 'Order.status: "open or paid"' in found
    assert 'Money.ofCents(long): "Of hundredths."' in found
    assert 'orders.customer_id: "who pays"' in found


def test_every_piece_names_the_line_that_it_quotes(project: Path, whole: Pack) -> None:
    for piece in whole.pieces:
        path = project / piece.file
        path = path if path.exists() else project / "src" / piece.file
        assert piece.quotes in path.read_text().splitlines()[piece.line - 1], piece
    assert (
        sum(bool(piece.quotes) for piece in whole.pieces) == len(whole.pieces) - 1
    )  # but the hole


def test_without_takes_away_the_pieces_of_its_kind_alone(project: Path, whole: Pack) -> None:
    for kind in KINDS:
        left = packed(project, without=[kind]).pieces
        assert left == tuple(piece for piece in whole.pieces if piece.kind != kind)
        assert len(left) < len(whole.pieces)
    for budget in (150, 400):  # also where the budget is short
        short = packed(project, budget=budget).pieces
        left = packed(project, budget=budget, without=["objects"]).pieces
        assert left == tuple(piece for piece in short if piece.kind != "objects")
    assert packed(project, without=KINDS).text == ""


def test_the_same_bytes_in_another_folder_and_order(project: Path, tmp_path: Path) -> None:
    more = "CREATE TABLE order_lines (sku VARCHAR(9));"
    write(project, {"more.sql": more})
    first = packed(project, schema=[project / "schema.sql", project / "more.sql"])
    other = tmp_path / "elsewhere" / "deep"
    for name in reversed(java_project.FILES):
        write(other, {name: java_project.FILES[name]})
    write(other, {"more.sql": more})
    again = packed(other, schema=[other / "more.sql", other / "schema.sql"])
    assert json.dumps(again.as_dict()) == json.dumps(first.as_dict())


def test_a_budget_is_kept_by_whole_pieces(project: Path, whole: Pack) -> None:
    for budget in (40, 100, 250, 500, 1000, 2000):
        found = packed(project, budget=budget)
        assert found.tokens == count_tokens(found.text) <= budget
        assert set(found.pieces) <= set(whole.pieces)
        assert found.left_out == len(whole.pieces) - len(found.pieces)
    assert not packed(project).left_out


def test_depth_counts_steps_from_the_variables(project: Path) -> None:
    near = packed(project, depth=1)
    assert {piece.distance for piece in near.pieces} == {0, 1}
    assert not any("class Address" in text for text in texts(near, "objects"))
    assert {piece.kind for piece in packed(project, depth=0).pieces} == {"scope", "comments"}
    with pytest.raises(uvmerge.UsageError, match="less than 0"):
        packed(project, depth=-1)


@pytest.mark.parametrize(
    ("code", "hole"),
    [
        ("dto.setTotal(/*HOLE*/);", "expression of type long for total"),
        ("long x = /*HOLE*/;", "expression of type long for x"),
        ("dto.total = /*HOLE*/;", "expression of type long for total"),
        ("new R(1, /*HOLE*/);", "expression of type D for second"),
        ("var y = dto; y.setTotal(/*HOLE*/);", "expression of type long for total"),
        ("for (D each : all) { each.setTotal(/*HOLE*/); }", "expression of type long for total"),
        ("all.forEach(each -> { each.setTotal(/*HOLE*/); });", "expression of type long for total"),
        ("return /*HOLE*/;", "expression of type D for f"),
        ("if (dto != null) { /*HOLE*/ }", "statements"),
        ("", "statements"),
    ],
)
def test_what_the_hole_is(tmp_path: Path, code: str, hole: str) -> None:
    code = code or "/*HOLE*/"
    text = f"""import java.util.List;
class A {{
  D f(D dto, List<D> all) {{
    {code}
    return dto;
  }}
}}
class D {{ long total; void setTotal(long it) {{}} }}
record R(int first, D second) {{}}
"""
    write(tmp_path, {"A.java": text})
    assert f"// hole: {hole}" in texts(pack(tmp_path / "A.java"), "scope")


def test_locals_are_those_before_the_hole_and_the_nearest_wins(tmp_path: Path) -> None:
    code = """int early = 1;
    { int gone = 2; }
    for (B b2 : list()) {
      try (X res = open()) { int inner = 3; /*HOLE*/ int late = 4; } catch (E error) { }
    }
    int later = 5;"""
    write(tmp_path, {"A.java": filled(code).replace("class A {", "class A {\n int early, own;")})
    found = [
        text for text in texts(pack(tmp_path / "A.java"), "scope") if not text.startswith("// ")
    ]
    assert found == [
        "int inner; // local", "X res; // local", "B b2; // local", "int early; // local",
        "B b; // parameter", "C c; // parameter", "int own; // field",
    ]  # fmt: skip


def test_a_name_in_two_packages_is_the_one_that_the_file_means(tmp_path: Path) -> None:
    files = {
        "a/Order.java": "package a; public class Order { int fromA; }",
        "b/Order.java": "package b; public class Order { int fromB; }",
        "c/M.java": "package c; import b.Order; class M { void f(Order o) { /*HOLE*/ } }",
        "d/M.java": "package d; import gen.Order; class M { void f(Order o) { /*HOLE*/ } }",
        "a/M.java": "package a; class M { void f(Order o, b.Order p) { /*HOLE*/ } }",
    }
    write(tmp_path, files)
    assert "fromB" in pack(tmp_path / "c/M.java").text
    assert "fromA" not in pack(tmp_path / "c/M.java").text
    lost = pack(tmp_path / "d/M.java")  # no namesake takes its place
    assert "from" not in lost.text and "unknown type gen.Order" in lost.text
    assert "fromA" in pack(tmp_path / "a/M.java").text
    assert "fromB" in pack(tmp_path / "a/M.java").text


def test_one_index_serves_many_holes_and_texts(project: Path) -> None:
    index = open_index(
        project / "src", schema=[project / "schema.sql"], classpath=[project / "lib"]
    )
    file = project / MAPPER
    assert index.pack(file) == packed(project)
    text = file.read_text().replace("/*HOLE*/", "")
    assert index.pack(file, Place(13, 5), text=text).pieces == packed(project).pieces


def test_the_command_prints_text_or_one_object(
    project: Path, whole: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ccci", "pack", project / MAPPER, "--schema", project / "schema.sql"]
    words += ["--classpath", project / "lib"]
    shown = uv(capsys, *words)
    assert shown.code == 0 and shown.out == f"{whole.text}\n"
    assert "note: schema.sql:2: statement not understood" in shown.err
    assert f"{len(whole.pieces)} pieces, {whole.tokens:,} of 2,000 tokens" in shown.err
    data = json.loads(uv(capsys, *words, "--json").out)
    assert data == json.loads(json.dumps(whole.as_dict()))
    short = uv(capsys, *words, "--budget", "100", "--without", "comments", "--json").out
    assert json.loads(short)["tokens"] <= 100


def test_python_takes_a_place_as_text(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    file = tmp_path / MAPPER
    marked = uvmerge.pack_ccci(file, classpath=str(tmp_path / "lib"))
    file.write_text(file.read_text().replace("/*HOLE*/", ""))
    for hole in ("13:5", Place(13, 5), 13):
        assert uvmerge.pack_ccci(file, hole=hole, classpath=str(tmp_path / "lib")) == marked
    assert str(marked) == marked.text


def test_without_the_extra_one_line_says_what_to_install(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from uvmerge.tasks.ccci import java

    java.parser.cache_clear()
    for name, schema in (("tree_sitter", []), ("tree_sitter_java", [])):
        monkeypatch.setitem(sys.modules, name, None)
        shown = uv(capsys, "ccci", "pack", project / MAPPER, *schema)
        assert shown.code == 2 and not shown.out
        assert "pip install 'uvmerge[ccci]'" in shown.err and "Traceback" not in shown.err
        monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    shown = uv(capsys, "ccci", "pack", project / MAPPER, "--schema", project / "schema.sql")
    assert shown.code == 2 and "needs sqlglot" in shown.err


def test_a_pair_of_parsers_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import tree_sitter

    from uvmerge.tasks.ccci import java

    def refuse(*_: object) -> None:
        raise TypeError("an integer is required")

    java.parser.cache_clear()
    monkeypatch.setattr(tree_sitter, "Language", refuse)
    with pytest.raises(uvmerge.UsageError, match="do not fit together: an integer is required"):
        java.parse("class A {}")
    java.parser.cache_clear()
