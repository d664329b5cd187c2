"""What `diff` returns: findings that show themselves in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UsageError, counted
from ..measure import findings
from ..output.disk import disk_errors
from ..output.places import report_folder
from ..text import brief, expanded, two_lines

Item = TypeVar("Item", bound=findings.Entry | findings.Other)


def as_frame(rows: Iterable[Mapping[str, object]]) -> Any:
    """Rows as a pandas DataFrame.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise UsageError("to_frame", "needs pandas", "pip install pandas") from error
    return pandas.DataFrame(rows)


class Listing(tuple[Item, ...]):
    """Matrices or tensors of a checkpoint, a tuple with a short `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        names = ", ".join(brief(each.name, 60) for each in self[:3])
        return two_lines(
            "Listing",
            f"{counted(len(self), 'item')}: {names}{', …' * (len(self) > 3)}",
            "[0] is the first; .name, .relative and others tell of one",
        )

    def __str__(self) -> str:
        return "\n".join(f"{brief(each.name)}  {each.relative}" for each in self)


class Entry(findings.Entry):
    """One matrix of a fine-tuned checkpoint, with methods that show it."""

    def __str__(self) -> str:
        from .. import report

        return report.entry_summary(self)

    def _repr_html_(self) -> str:
        from .. import report

        return report.entry_figure(self)


@dataclass(frozen=True, repr=False)
class Compared(findings.Compared):
    """One checkpoint against the base, with methods that show it.

    Attributes:
        base: the label of the base.
    """

    base: str = "base"

    def __str__(self) -> str:
        from .. import report

        return report.summary(self._alone)

    def _repr_html_(self) -> str:
        from .. import report

        return report.figure(self._alone)

    @property
    def _alone(self) -> findings.Findings:
        """The findings of this checkpoint alone."""
        return findings.Findings(self.base, None, (self,))


@dataclass(frozen=True, repr=False)
class Diff(findings.Findings):
    """`Findings`, with methods that save and show them.

    Attributes:
        references: the checkpoints as they were named, the base first.
    """

    references: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """JSON-able data, as in `report.json`."""
        from .. import report

        return report.as_data(self)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write `report.json`, `matrices.csv`, `report.html` and, where matplotlib is installed,
        `report.png` into `folder`; returns the paths.

        Raises:
            InputRefused: `folder` holds other files and `overwrite` is false.
        """
        from .. import report

        target = report_folder(folder, overwrite)
        with disk_errors(target, target, resumes=False):
            return report.save(self, target)

    def save_figures(self, folder: str | Path) -> list[Path]:
        """Write the report's figures as PNG and PDF into `folder` (needs matplotlib)."""
        from ..report.figures import save_figures

        with disk_errors(target := expanded(folder), target, resumes=False):
            return save_figures(self, target)

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row per matrix and checkpoint, as in `matrices.csv`."""
        from ..report import rows

        return as_frame(rows(self))

    def __str__(self) -> str:
        from ..report import summary, what_now

        named = self.references or self.labels
        step = what_now(self, named[0], named[-1], page=False)
        return "\n".join([summary(self), "", *step.lines()])

    def _repr_html_(self) -> str:
        from ..report import figure

        return figure(self)
