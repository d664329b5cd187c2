"""Finds out which kind of evaluation a path holds, and reads it."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputRefused, listed
from ..text import folder_meant
from .answers import answers_files, read_answers, read_report
from .harness_results import read_results, results_files
from .scores import Evaluated

_HOLDS = "Name a folder with results_*.json of lm_eval, JSON Lines of items, or the report.json of a demo."


def read_evaluation(name: str, path: Path, force: bool) -> list[Evaluated]:
    """The checkpoints that a file or folder tells of: one, or every row of a demo.

    Args:
        name: of the checkpoint; empty for the name of the folder, and of the demo's rows alone.
        force: leave out what is broken, and note it.

    Raises:
        InputRefused: there is no evaluation, or the folder holds those of several models.
    """
    if not path.exists():
        raise InputRefused(path, "does not exist", folder_meant(path) or _HOLDS)
    if path.is_dir():
        return _of_folder(name, path, force)
    called = name or path.parent.name
    if path.suffix == ".jsonl":
        return [read_answers(name or path.stem, [path], force)]
    if path.suffix == ".json":
        rows = read_report(path)
        return _rows(name, rows) if rows else [read_results(called, [path], force)]
    raise InputRefused(path, "is no evaluation", _HOLDS)


def _of_folder(name: str, folder: Path, force: bool) -> list[Evaluated]:
    if files := results_files(folder):
        return [read_results(name or folder.name, files, force)]
    if answers := answers_files(folder):
        return [read_answers(name or folder.name, answers, force)]
    report = folder / "report.json"
    if report.is_file() and (rows := read_report(report)):
        return _rows(name, rows)
    models = sorted(path for path in folder.iterdir() if path.is_dir() and results_files(path))
    if len(models) > 1:
        what = f"holds results of {listed([path.name for path in models], 'model')}"
        raise InputRefused(folder, what, f"Name one of them, such as {models[0]}.")
    if models:
        return _of_folder(name or folder.name, models[0], force)
    raise InputRefused(folder, "holds no evaluation", _HOLDS)


def _rows(name: str, rows: list[Evaluated]) -> list[Evaluated]:
    """The rows of a demo, called by their names, after that of the demo if it has one."""
    return [row.renamed(f"{name}/{row.name}") if name else row for row in rows]
