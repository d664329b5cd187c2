"""The figures for a paper: all there, the same every time, and inert whatever things are called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from uvmerge import UsageError
from uvmerge.measure.compare import measure
from uvmerge.measure.findings import Behaviour, Compared, Entry, Findings, Pair
from uvmerge.report import figures
from uvmerge.report.figures import save_figures
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT

SHAPES = {"q_proj": (16, 16), "up_proj": (24, 16), "down_proj": (16, 24)}
HOSTILE = "$\\frac{1}{0}$\x1b[31m<script>\u202e家_^"


def random(shape: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def entries(seed: int, strength: float, *, layers: int = 2, k: int = 6) -> tuple[Entry, ...]:
    found = []
    for place, (role, shape) in enumerate(list(SHAPES.items()) * layers):
        A = random(shape, place)
        base = DenseMatrix("b", A, EXACT)
        other = DenseMatrix("f", A + strength * random(shape, 100 * seed + place), EXACT)
        (measures,) = measure(base, [other], k)
        layer = place // len(SHAPES)
        name = f"model.layers.{layer}.{role}.weight"
        found.append(Entry(name, layer, "mlp", role, shape, "BF16", "measured", measures))
    return tuple(found)


def one(*compared: Compared, **more: Any) -> Findings:
    return Findings("org/base", None, compared, **more)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 40)


@pytest.fixture
def pair() -> Findings:
    return one(Compared("org/sft", None, entries(1, 0.1)))


@pytest.fixture
def trajectory() -> Findings:
    answers = [Behaviour(9, 90, 0.1, 0.01, 2.0, 1.9, 0.8, 0.9), None]
    compared = [
        Compared(f"org/step-{i}", None, entries(i, 0.1 * i), behaviour=answers[i - 1])
        for i in (1, 2)
    ]
    pairs = (Pair(0, 1, 0.1, 0.2, 0.1), Pair(0, 2, 0.2, 0.3, 0.2), Pair(1, 2, 0.1, 0.2, 0.1))
    return one(*compared, pairs=pairs)


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths if path.suffix == ".png"]


def test_without_matplotlib_it_is_said_how_to_get_it(
    pair: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError) as refused:
        save_figures(pair, tmp_path / "figures")
    message = "--figures: needs matplotlib\n  pip install 'uvmerge[plot]'"
    assert str(refused.value) == message and not (tmp_path / "figures").exists()


def test_a_pair_gives_maps_and_the_three_most_moved_matrices(
    pair: Findings, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    paths = save_figures(pair, tmp_path / "new" / "figures")
    assert names(paths) == ["maps", "matrix-1", "matrix-2", "matrix-3"]
    assert sorted(paths) == sorted((tmp_path / "new" / "figures").iterdir()) and len(paths) == 8
    for path in paths:
        start = b"\x89PNG" if path.suffix == ".png" else b"%PDF"
        assert path.read_bytes().startswith(start)


def test_a_trajectory_gives_all_that_for_each_and_what_lies_between(
    trajectory: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(figures, "MOST_MOVED", 1)
    own = ["maps", "matrix-1"]
    each = [f"checkpoint-{i}-{name}" for i in (1, 2) for name in own]
    assert names(save_figures(trajectory, tmp_path)) == [*each, "trajectory", "distances"]


def settings(matplotlib: Any) -> dict[str, Any]:
    """All but the backend, which would be looked for, and pyplot imported."""
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}


def test_files_repeat_to_the_byte_and_leave_matplotlib_as_it_was(
    pair: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setattr(figures, "MOST_MOVED", 1)
    first = save_figures(pair, tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):
        before = settings(matplotlib)
        second = save_figures(pair, tmp_path / "b")
        assert settings(matplotlib) == before
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert "matplotlib.pyplot" not in sys.modules


def test_hostile_names_are_shown_as_they_are_and_never_read_as_mathematics(
    pair: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Text = pytest.importorskip("matplotlib.text").Text
    monkeypatch.setattr(figures, "MOST_MOVED", 1)
    rows = [
        Entry(HOSTILE, i, "x", HOSTILE, e.shape, "F32", e.state, e.measures)
        for i, e in enumerate(pair.compared[0].entries)
    ]
    compared = [Compared(HOSTILE, None, tuple(rows)), Compared("_" * 300, None, tuple(rows))]
    findings = Findings(HOSTILE, None, tuple(compared), (Pair(0, 1, 0.1, 0.1, 0.1),))
    assert len(save_figures(findings, tmp_path)) == 12  # what the font has no sign for would warn
    texts = []
    for _, figure in figures._figures(findings):
        texts += [text for text in figure.findobj(Text) if "$" in text.get_text()]
    assert len(texts) > 10
    for text in texts:
        assert not text.get_parse_math() and not text.get_usetex()
        assert "\\x1b[31m<script>\\u202e\\u5bb6_^" in text.get_text() or "…" in text.get_text()


def test_findings_without_numbers_are_drawn_as_well(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    A = random((8, 8), 0)
    zero, same = torch.zeros(8, 8, dtype=torch.float64), A.clone()
    cases = {"zero": (zero, A), "same": (A, same), "full": (A, A + 1)}
    rows = [Entry("i", 0, "m", "i", (8, 8), "F32", "identical")]
    rows.append(Entry("n", None, "m", "n", (8, 8), "F32", "nonfinite"))
    for name, (base, other) in cases.items():
        (found,) = measure(DenseMatrix("b", base, EXACT), [DenseMatrix("f", other, EXACT)], 8)
        rows.append(Entry(name, 1, "m", name, (8, 8), "F32", "measured", found))
    (single,) = measure(DenseMatrix("b", A, EXACT), [DenseMatrix("f", A + 1, EXACT)], 1)
    rows.append(Entry("single", 1, "m", "single", (8, 8), "F32", "measured", single))
    paths = save_figures(one(Compared("a", None, tuple(rows))), tmp_path / "a")
    assert len(names(paths)) == 4
    unmoved = Compared("b", None, tuple(rows[:1]))
    assert names(save_figures(one(unmoved, unmoved), tmp_path / "b"))[-1] == "trajectory"
    assert save_figures(one(Compared("c", None, ())), tmp_path / "c") == []


def test_a_file_in_the_way_is_refused(pair: Findings, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--figures: is a file"):
        save_figures(pair, tmp_path / "file")
