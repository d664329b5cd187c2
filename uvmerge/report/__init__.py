"""Findings of a comparison as files: `report.json`, `matrices.csv`, the page, and a picture of it."""

from __future__ import annotations

import json
from pathlib import Path

from ..measure.findings import Findings
from ..output.manifest import write_whole
from .card import picture_of
from .data import as_data
from .fragments import bars, entry_figure, entry_summary
from .page import figure, render
from .rows import as_csv, rows
from .summary import summary
from .what_now import what_now
from .words import headline

__all__ = [
    "as_data",
    "bars",
    "entry_figure",
    "entry_summary",
    "figure",
    "headline",
    "render",
    "rows",
    "save",
    "summary",
    "what_now",
]  # fmt: skip


def save(findings: Findings, folder: str | Path) -> list[Path]:
    """Write the files into `folder`, every file whole or not at all; returns their paths.

    `report.png`, the first screen of the page as a picture, is written where matplotlib is installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(as_data(findings), separators=(",", ":"), allow_nan=False, default=str)
    contents = {
        "report.json": data + "\n",
        "matrices.csv": as_csv(findings),
        "report.html": render(findings),
    }
    files = {name: text.encode() for name, text in contents.items()}
    drawn = picture_of(findings)
    if drawn is not None:
        files["report.png"] = drawn
    for name, content in files.items():
        write_whole(folder / name, content)
    return [folder / name for name in files]
