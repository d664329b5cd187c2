"""The notebook docs/tour.ipynb runs from an empty folder, and its outputs name no machine."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import tour  # noqa: E402


def kinds(notebook: nbformat.NotebookNode) -> list[list[set[str]]]:
    """What each cell of code shows: the types of data, or `stream`."""
    shown = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return [
        [set(o.data) if "data" in o else {o.output_type} for o in outputs]
        for outputs in shown
    ]  # fmt: skip


def test_the_notebook_runs_and_shows_what_it_shows_in_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in tour.VARIABLES:
        monkeypatch.setenv(name, str(tmp_path))  # so that it is as before after the test
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    done, kept = tour.executed(tour.NOTEBOOK, tmp_path), nbformat.read(tour.NOTEBOOK, as_version=4)
    assert kinds(done) == kinds(kept)
    assert any({"text/plain", "image/png"} in cell for cell in kinds(done))
    written = {path.name for path in (tmp_path / "work").iterdir()}
    assert written == {"restored", "project", "interpolate"}


def test_the_kept_outputs_are_of_a_whole_run_and_name_no_machine() -> None:
    text = tour.NOTEBOOK.read_text()
    assert not re.search(r"/(root|home|work|tmp|usr)/\w", text) and len(text) < 300_000
    kept = nbformat.read(tour.NOTEBOOK, as_version=4)
    nbformat.validate(kept)
    cells = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
