"""What a comparison found, written down: `report.json`, `matrices.csv` and one page, `report.html`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..findings import Findings, as_data
from .page import figure, render
from .rows import as_csv, rows
from .summary import summary
from .words import headline

__all__ = ["figure", "headline", "render", "rows", "save", "summary"]


def save(findings: Findings, folder: str | Path) -> list[Path]:
    """Write the three files into `folder`, each whole or not at all; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(as_data(findings), separators=(",", ":"), allow_nan=False, default=str)
    contents = {
        "report.json": data + "\n",
        "matrices.csv": as_csv(findings),
        "report.html": render(findings),
    }
    return [write_whole(folder / name, text.encode()) for name, text in contents.items()]


def write_whole(path: Path, content: bytes) -> Path:
    """Put a file in its place when it is complete; what a killed run left of it goes."""
    for left in path.parent.glob(f".{path.name}.[0-9]*"):
        left.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
