"""What a comparison found, for people and programs: summary, JSON, CSV, one page, figures."""

from __future__ import annotations

from .summary import summary

__all__ = ["summary"]


def save(findings, folder):
    import json

    from ..findings import as_data

    (folder / "report.json").write_text(json.dumps(as_data(findings)))
    return [folder / "report.json"]
