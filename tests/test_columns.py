"""One table of measures: a row is shown everywhere, with one set of values and one rule of chance."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from findings import base_matrix, compare, entry, model, moved, pair

import uvmerge
from uvmerge import report
from uvmerge.api import stub
from uvmerge.measure import judgement
from uvmerge.measure.findings import Compared, Entry, Findings, Pair, by_place
from uvmerge.report import columns, figures, trajectory
from uvmerge.report.colours import GOOD, SEQUENTIAL, mixed
from uvmerge.report.column import Column, Place, mean
from uvmerge.report.columns import column_of, shown_in
from uvmerge.report.format import DEGREES, SHARE, number
from uvmerge.report.meaning import documentation
from uvmerge.report.scales import scale_of

DOCS = Path(uvmerge.__file__).parent.parent / "docs" / "report.md"


@pytest.fixture(scope="module")
def related() -> Findings:
    (entries,) = model(lambda W, g: [moved(W, 1.0, g)])
    return pair(*entries)


@pytest.fixture(scope="module")
def with_strangers() -> Findings:
    """Two checkpoints, each with some matrices that have nothing to do with the base, one that is
    equal to it and one that holds NaN."""
    generator = torch.Generator().manual_seed(3)
    compared = []
    for scale in (0.2, 0.4):
        entries = []
        for layer in range(3):
            for role in ("q_proj", "up_proj", "down_proj"):
                (m, n) = {"q_proj": (40, 40), "up_proj": (96, 40), "down_proj": (40, 96)}[role]
                W = base_matrix(m, n, generator)
                stranger = layer == 1 and role != "q_proj"
                after = base_matrix(m, n, generator) if stranger else moved(W, scale, generator)
                entries.append(entry(compare(W, [after], 8)[0], layer, role))
        entries += [entry(None, 3), entry(None, 4, state="nonfinite")]
        compared.append(Compared(f"step-{scale}", None, tuple(entries)))
    pairs = (Pair(0, 1, 0.1, 0.2, 0.1), Pair(0, 2, 0.2, 0.3, 0.2), Pair(1, 2, 0.1, 0.2, 0.1))
    return Findings("base", None, tuple(compared), pairs)


def html_of(text: str, title: str) -> str:
    """The figure of that title."""
    (found,) = [each for each in text.split("<figure>") if each.startswith(f"<figcaption>{title}")]
    return found


def axes_of(findings: Findings) -> dict[str, Any]:
    """The axes of all figures for a paper, by file name and title."""
    return {
        f"{name}: {axes.get_title(loc='left') or axes.get_title()}": axes
        for name, figure in figures._figures(findings)
        for axes in figure.axes
    }


# --- a row is shown everywhere -------------------------------------------------------------------


def test_a_measure_is_a_row_and_a_function(
    with_strangers: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def concentration(matrix: Entry) -> float | None:
        """σ₁(D) over the sum of all singular values of D."""
        found = matrix.measures
        if found is None or not found.change.norm:
            return None
        return found.change.values[0] / sum(found.change.values)

    row = Column(
        "concentration", concentration, name="concentration of the change", unit=SHARE,
        meaning="σ₁(D) over the sum of all σ(D).",
    )  # fmt: skip
    assert "concentration" not in report.summary(with_strangers)
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, row))
    json_path, csv_path, page_path, *_ = report.save(with_strangers, tmp_path)
    last = with_strangers.compared[-1]
    expected = [value for each in last.entries if (value := concentration(each)) is not None]

    matrices = json.loads(json_path.read_text())["checkpoints"][-1]["matrices"]
    written = [each["concentration"] for each in matrices if each["state"] == "measured"]
    assert written == pytest.approx(expected, rel=1e-5)

    lines = list(csv.DictReader(io.StringIO(csv_path.read_text())))[len(last.entries) :]
    cells = [float(line["concentration"]) for line in lines if line["state"] == "measured"]
    assert cells == pytest.approx(expected, rel=1e-5)

    told = [value for each in last.related_matrices if (value := concentration(each)) is not None]
    table = report.summary(with_strangers).splitlines()
    (head,) = (line.split() for line in table if line.startswith("mean of"))
    (means,) = (line.split() for line in table if line.startswith("all "))
    assert head[-1] == "concentration-of-the-change"
    assert means[-1] == SHARE.text(sum(told) / len(told)).replace(" ", "")

    page = page_path.read_text()
    assert "<th>concentration of the change" in page  # of the most moved, and of each matrix
    assert "<dt>Concentration of the change</dt>" in page
    drawn = page.count("<figcaption>Concentration of the change")
    assert drawn == 2  # over the checkpoints, and by layer and role
    assert "| concentration of the change | `concentration` | σ₁(D) over the" in documentation()

    pytest.importorskip("matplotlib")
    figures_of_it = [name for name in axes_of(with_strangers) if "Concentration" in name]
    assert figures_of_it == [
        f"{name}: Concentration of the change"
        for name in ("checkpoint-1-maps", "checkpoint-2-maps", "trajectory")
    ]


def test_a_column_is_where_it_says_and_nowhere_else(
    related: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = Column("concentration", lambda _: 0.5, shown=Place.CSV)
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, only))
    json_path, csv_path, page_path, *_ = report.save(related, tmp_path)
    assert "concentration" in csv_path.read_text().splitlines()[0]
    assert "concentration" not in json_path.read_text()
    assert "<figcaption>Concentration" not in page_path.read_text()
    assert "concentration" not in report.summary(related)


def test_keys_and_places_are_each_taken_once() -> None:
    keys = Counter(name for column in columns.COLUMNS for name in (column.key, column.path) if name)
    keys.update(each.key_of_chance for each in columns.COLUMNS if each.has_chance)
    assert max(keys.values()) == 1


# --- the documentation ---------------------------------------------------------------------------


def test_the_documentation_has_the_table_of_measures() -> None:
    assert DOCS.read_text() == stub.report_docs(), "run `python -m uvmerge.api.stub`"
    assert documentation() in DOCS.read_text()


def test_the_documentation_follows_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Column(
        "concentration", lambda _: 0.5, path="delta.concentration", chance=lambda _: 0.1,
        name="concentration of the change", meaning="σ₁(D) over the sum of all σ(D).",
    )  # fmt: skip
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, row))
    made = stub.report_docs()
    assert "\n| concentration of the change | `concentration` | σ₁(D) over the sum" in made
    assert "`concentration`, `concentration_chance`" in " ".join(made.split("<!-- keys")[1].split())
    monkeypatch.undo()
    assert stub.report_docs() == DOCS.read_text()


def test_the_documentation_names_the_thresholds() -> None:
    text = DOCS.read_text()
    for threshold in (
        f"|cosine| is under {judgement.UNRELATED_COSINE}",
        f"under {judgement.RELATED_COSINE} and",
        f"at most {judgement.TIMES_ROUNDING} times what rounding makes",
        f"± {judgement.BAND_SD:.0f} standard deviations",
    ):
        assert threshold in text, threshold


# --- one set of values, one rule of chance -------------------------------------------------------


@pytest.mark.parametrize("key", [column.key for column in shown_in(Place.FIGURE)])
def test_a_heat_map_for_a_paper_shows_and_hatches_what_the_page_does(
    key: str, with_strangers: Findings
) -> None:
    pytest.importorskip("matplotlib")
    column, compared = column_of(key), with_strangers.compared[-1]
    (axes,) = (
        each
        for name, each in axes_of(with_strangers).items()
        if name.startswith(f"checkpoint-2-maps: {column.title}")
    )
    roles, layers, cells = by_place(compared.entries)
    array = axes.collections[0].get_array().reshape(len(roles), len(layers))
    values = array.filled(math.nan)
    hatched = {(round(p.get_y() + 0.5), round(p.get_x() + 0.5)) for p in axes.patches}
    assert all(patch.get_hatch() for patch in axes.patches) and hatched
    if Place.MAP not in column.shown:
        return
    page = html_of(report.figure(with_strangers), column.title)
    for (role, layer), _ in cells.items():
        i, j = roles.index(role), layers.index(layer)
        tip = re.search(f"<title>layer {layer}, {role}: ([^<,;]*)([^<]*)</title>", page)
        assert tip
        shown = "–" if math.isnan(float(values[i, j])) else number(float(values[i, j]))
        assert tip[1].rstrip("°") == shown
        assert ("no finding" in tip[2]) is ((i, j) in hatched)


def test_strangers_count_in_no_mean_angle_of_any_drawing(
    with_strangers: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the four strangers turned by 70°; of the others none by as much as 5°."""
    pytest.importorskip("matplotlib")
    expected = {}
    for side in ("left", "right"):
        turned = [getattr(e.measures, side).mean for e in with_strangers.compared[-1].related_matrices]  # fmt: skip
        expected[side] = math.degrees(sum(turned) / len(turned))
        assert expected[side] < 5
    drawn: dict[str, float] = {}

    def chart(title: str, x: Any, y: Any, lines: Any, *_: Any) -> str:
        drawn[title] = lines[0].points[-1][1]
        return "drawn"

    monkeypatch.setattr(trajectory, "chart", chart)
    report.render(with_strangers)
    axes = axes_of(with_strangers)["trajectory: Mean angle, singular vectors"]
    lines = {line.get_label(): line.get_ydata()[-1] for line in axes.lines}
    (row,) = (x for x in report.summary(with_strangers).splitlines() if x.startswith("all "))
    in_words = " ".join(report.headline(with_strangers))
    for place, side in ((3, "left"), (4, "right")):
        # In a curve, a matrix that is equal to its base counts as one that turned by nothing.
        with_equal = expected[side] * 7 / 8
        assert drawn[f"Mean angle, {side} singular vectors"] == pytest.approx(with_equal)
        assert lines[side] == pytest.approx(with_equal)
        assert row.split()[place] == DEGREES.text(math.radians(expected[side]))
        assert f"{side} ones by {row.split()[place]} " in in_words


def test_a_rule_that_changes_changes_everywhere(
    related: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    def marks() -> tuple[bool, bool, bool, bool]:
        page = report.render(related)
        of_weights = html_of(page, "Relative change of the weights")
        axes = axes_of(related)["maps: Relative change of the weights"]
        row = re.search(r'<td class="name">.*?</tr>', page)
        assert row
        changed = row[0].split("<td>")[3]
        said = "rounding alone" in report.summary(related)
        return of_weights.count("#hatched") == 14, bool(axes.patches), "*" in changed, said

    assert marks() == (False, False, False, False)
    monkeypatch.setattr(judgement, "TIMES_ROUNDING", 1e9)
    assert marks() == (True, True, True, True)


# --- units and colours ---------------------------------------------------------------------------


def test_angles_are_stored_in_radians_and_read_in_degrees(
    related: Findings, tmp_path: Path
) -> None:
    json_path, csv_path, page_path, *_ = report.save(related, tmp_path)
    first = related.compared[0].entries[0]
    assert first.measures is not None
    left = first.measures.left.mean
    stored = json.loads(json_path.read_text())["checkpoints"][0]["matrices"][0]["left"]["mean"]
    assert stored == pytest.approx(left, rel=1e-5)
    row = next(csv.DictReader(io.StringIO(csv_path.read_text())))
    assert float(row["left_mean"]) == pytest.approx(left, rel=1e-5)
    page = page_path.read_text()
    assert f"<title>layer 0, q_proj: {number(math.degrees(left))}°" in page
    for text in (page, report.summary(related), *report.headline(related)):
        assert not re.search(r"\brad(ians)?\b", text)


def brightness(colour: tuple[float, ...]) -> float:
    red, green, blue = colour[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_dark_is_much_and_light_is_little_on_the_page_and_for_a_paper(related: Findings) -> None:
    pytest.importorskip("matplotlib")
    ramp = [brightness(mixed(SEQUENTIAL, i / 20)) for i in range(21)]
    assert ramp == sorted(ramp, reverse=True)
    good = [brightness(mixed(GOOD, i / 20)) for i in range(21)]
    assert good == sorted(good, reverse=True)
    entries = related.compared[0].entries
    drawn = shown_in(Place.FIGURE)
    axes = axes_of(related)
    for name, of in axes.items():
        if name.startswith("maps: Relative change of the weights"):
            mesh = of.collections[0]
            mesh.update_scalarmappable()
            scale = scale_of(drawn[0], drawn, list(by_place(entries)[2].values()))
            for value, found in zip(mesh.get_array().ravel(), mesh.get_facecolor()):
                wanted = mixed(scale.ramp, scale.axis.share(float(value)))
                assert [255 * part for part in found[:3]] == pytest.approx(wanted, abs=2)


def test_a_value_that_is_not_there_is_in_no_mean() -> None:
    of_left = column_of("left_mean")
    same, broken = entry(None), entry(None, state="nonfinite")
    assert of_left.values([same, broken]) == [0.0]
    assert mean(of_left.values([broken])) is None
    assert column_of("diag").values([same, broken]) == []
