"""Every error uvmerge raises on purpose, as one tree.

    UvmergeError
    ├── UsageError            exit 2   the call makes no sense, whatever the inputs
    │   └── RecipeError       exit 2   a recipe file, with the line it fails on
    ├── InputRefused          exit 3   a checkpoint that an edit cannot start from
    ├── RunFailed             exit 1   something broke while running; staging is kept
    │   └── Locked            exit 1   another run owns the output
    ├── ProblemsFound         exit 4   a check found problems
    ├── Unrelated             exit 4   checkpoints that have nothing in common to measure
    └── Interrupted           exit 130 or 143   a signal asked the run to stop

An error is three things: *where* (a file, a tensor, an option), *what* is wrong, and *what to
do*. `str(error)` joins them in that order, which is also what the command line prints.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


class UvmergeError(Exception):
    """Base of the tree.

    Args:
        where: the file, tensor or option concerned.
        what: what is wrong with it, with figures.
        do: what the user can do about it; may be empty where nothing can be done.
    """

    exit_code = 1

    def __init__(self, where: str | Path, what: str, do: str = "") -> None:
        self.where = _cut(str(where), from_start=True)
        self.what, self.do = _cut(what), _cut(do)
        super().__init__(": ".join(part for part in (self.where, what) if part))

    def __str__(self) -> str:
        sentence = super().__str__()
        return f"{sentence}\n  {self.do}" if self.do else sentence

    def as_data(self) -> dict[str, Any]:
        """The error as JSON-able data, which `--json` prints."""
        parts = {"where": self.where, "what": self.what, "do": self.do}
        return {"error": {"kind": type(self).__name__, **parts}}


class UsageError(UvmergeError):
    """The call makes no sense, whatever the checkpoints hold."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe cannot be read; `where` is `file:line`."""


class InputRefused(UvmergeError):
    """A checkpoint cannot be edited; nothing was written."""

    exit_code = 3


class RunFailed(UvmergeError):
    """The run broke on the way; its staging folder is kept and the same command resumes."""


class Locked(RunFailed):
    """Another run is writing to the same output."""


class ProblemsFound(UvmergeError):
    """A check found problems; `problems` lists them."""

    exit_code = 4

    def __init__(self, where: str | Path, problems: Iterable[str], do: str = "") -> None:
        self.problems = list(problems)
        super().__init__(where, listed(self.problems, "problem"), do)

    def as_data(self) -> dict[str, Any]:
        """The problems, and the error."""
        return {"ok": False, "problems": self.problems, **super().as_data()}


class Unrelated(UvmergeError):
    """Two checkpoints have too little in common for anything to be measured."""

    exit_code = 4

    def as_data(self) -> dict[str, Any]:
        """The verdict as a report has it, and the error."""
        return {"verdict": "unrelated", "reason": self.what, **super().as_data()}


class Interrupted(UvmergeError):
    """A signal asked the run to stop; the exit code is 128 + its number."""

    def __init__(
        self,
        where: str | Path,
        signal_number: int,
        do: str = "Run the same command again to resume.",
    ) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(where, "stopped", do)


def _cut(text: str, most: int = 700, *, from_start: bool = False) -> str:
    """`text`, cut where a name or value in it is far too long for a message."""
    if len(text) <= most:
        return text
    return f"…{text[-300:]}" if from_start else f"{text[:400]}… ({len(text):,} characters)"


def counted(count: int, noun: str) -> str:
    """`1 tensor`, `1,234 tensors`, `2 matrices`."""
    if count == 1:
        return f"1 {noun}"
    plural = f"{noun[:-2]}ices" if noun.endswith("ix") else f"{noun}s"
    return f"{count:,} {plural}"


def listed(names: Iterable[str], noun: str, most: int = 5) -> str:
    """`3 tensors: a, b, c`, cut after `most` names, for messages about many things."""
    names = list(names)
    shown = ", ".join(name if len(name) <= 200 else f"{name[:200]}…" for name in names[:most])
    more = f", … and {len(names) - most:,} more" if len(names) > most else ""
    return f"{counted(len(names), noun)}: {shown}{more}"
