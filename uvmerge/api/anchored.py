"""What `anchor_build` and `anchor_show` return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.stacks import template
from ..errors import counted
from ..plan.anchor import AnchorPlan
from ..text import duration, inert, size, table, two_lines


@dataclass(frozen=True)
class Anchored:
    """What `anchor_build` did.

    Attributes:
        out: the anchor file; None after a dry run.
        plan: what is anchored.
        ranks: k of each matrix by name; after a dry run with `energy`, the largest that k may be.
        size_bytes: of the file; after a dry run with `energy`, the largest that it may be.
        seconds: wall time.
        was_there: whether OUT was the whole file of this call already; then nothing was written.
        phases: seconds by phase; `read`, `hash`, `decompose` and `write` are summed over threads.
    """

    out: Path | None
    plan: AnchorPlan = field(repr=False)
    ranks: Mapping[str, int] = field(repr=False)
    size_bytes: int
    seconds: float = 0.0
    was_there: bool = False
    phases: Mapping[str, float] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        place = "a plan, nothing was written" if self.out is None else str(self.out)
        return two_lines("Anchored", place, self.summary)

    def __str__(self) -> str:
        return self.plan.as_table() if self.out is None else f"{self.summary}\n{inert(self.out)}"

    @property
    def summary(self) -> str:
        """What was done, in a sentence."""
        matrices = counted(len(self.ranks), "matrix")
        if self.was_there:
            return "was there already: the whole file of this command; nothing was written"
        if self.out is None:
            most = "at most " if self.plan.by_energy else ""
            return f"{matrices}, {most}{size(self.size_bytes)} to write"
        done = f"done in {duration(self.seconds)}"
        return f"{done}: {matrices} anchored, {size(self.size_bytes)} written"

    def as_data(self) -> dict[str, Any]:
        """The result as JSON-able data."""
        return {
            "out": None if self.out is None else str(self.out), "bytes": self.size_bytes,
            "estimated_cpu_s": round(self.plan.seconds, 1), "asked": self.plan.asked,
            "dtype": self.plan.dtype, "k": dict(self.ranks), "notes": list(self.plan.notes),
            "seconds": round(self.seconds, 3), "was_there": self.was_there,
            "phases": {name: round(spent, 3) for name, spent in self.phases.items()},
        }  # fmt: skip


class AnchorContents(dict[str, Any]):
    """What `anchor_show` returns: JSON-able data that shows itself in a terminal."""

    def __repr__(self) -> str:
        of = f"{self['file']}: {counted(len(self['matrices']), 'matrix')}, {size(self['bytes'])}"
        return two_lines("AnchorContents", of, f"keys {', '.join(self)}; print() gives the table")

    def __str__(self) -> str:
        asked = ", ".join(f"{key} {value}" for key, value in self["selection"].items())
        made_with = ", ".join(f"{key} {value}" for key, value in self["made_with"].items())
        head = [
            f"{self['file']}: {counted(len(self['matrices']), 'matrix')}, {size(self['bytes'])},"
            f" factors in {self['dtype']}",
            f"asked for: {asked}",
            f"made by uvmerge {self['version']} with {made_with}",
        ]
        groups: dict[tuple[str, str, str], list[int]] = {}
        for each in self["matrices"]:
            k = f"{each['k']}{' (all)' if each['full'] else ''}"
            key = (template(each["name"]), " × ".join(map(str, each["shape"])), k)
            groups.setdefault(key, []).append(each["bytes"])
        rows = [(*key, len(sizes), size(sum(sizes))) for key, sizes in groups.items()]
        columns = ("matrix", "shape", "k", "count", "bytes")
        return "\n".join([*map(inert, head), table(columns, rows, right="k count bytes")])
