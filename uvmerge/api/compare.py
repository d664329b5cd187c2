"""`uvmerge compare`: which differences between evaluations of checkpoints are findings.

    found = uvmerge.compare({"base": "out/base", "sft": "out/sft", "mine": "out/mine"},
                            base="base", finetuned="sft")
    found.save("report")

The flow: paths → evaluations → what differs apart from the models → tests → report.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputRefused, UsageError, listed
from ..operations.options import did_you_mean
from ..output.disk import disk_errors
from ..output.places import Reference, report_folder
from ..tasks.comparison import tables
from ..tasks.evaluations import read_evaluation
from ..tasks.outcome import ComparedScores, domains, line_by_names
from ..tasks.scores import Evaluated, differences, pooled_groups
from .results import as_frame

BASE, FINETUNED = "base", "finetuned"


class Comparison(ComparedScores):
    """`ComparedScores`, with methods that save and show them."""

    def as_data(self) -> dict[str, Any]:
        """JSON-able data, as in `report.json`."""
        from ..report.scores import as_data

        return as_data(self)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write `report.html`, `report.json` and `scores.csv` into `folder`; returns the paths.

        Raises:
            InputRefused: `folder` holds other files and `overwrite` is false.
        """
        from ..report.scores import save

        target = report_folder(folder, overwrite)
        with disk_errors(target, target, resumes=False):
            return save(self, target)

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each metric and checkpoint, as in `scores.csv`."""
        from ..report.scores import rows

        return as_frame(rows(self))

    def __str__(self) -> str:
        from ..report.scores_text import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from ..report.scores_page import fragment

        return fragment(self)


def compare(
    checkpoints: Mapping[str, Reference] | Sequence[Reference],
    *,
    base: str | None = None,
    finetuned: str | None = None,
    line: Iterable[str] = (),
    in_domain: str | None = None,
    out_of_domain: str | None = None,
    force: bool = False,
) -> Comparison:
    """Compare evaluations of checkpoints on the same items.

    Args:
        checkpoints: by name, a folder of lm-evaluation-harness's results for one model, JSON Lines
            of items, or the `report.json` of a demo, each row of which is a checkpoint `NAME/ROW`.
            Also a list of paths or of `NAME=PATH`; without names, folders are called by their own
            names and rows by theirs.
        base: the name of the original model, which is `base` if there is one of this name.
        finetuned: the name of the model that the others are tested against: by default
            `finetuned`, else the first.
        line: names of interpolations, in order: the line of the plot; by default those called
            `interpolate-SCALE`.
        in_domain, out_of_domain: TASK or TASK.METRIC for the axes of the plot; by default tasks
            whose names end in `_id` and `_ood`, or those of the demo.
        force: compare though evaluations differ or are broken; what is left out is noted.

    Raises:
        InputRefused: an evaluation cannot be read, or differs from the first in its tasks, prompts,
            versions, limits or items, and not `force`.
        UsageError: a name is given twice or unknown.
    """
    evaluated = [
        one
        for name, path in named_paths(checkpoints)
        for one in read_evaluation(name, Path(path), force)
    ]
    names = [one.name for one in evaluated]
    _refuse_twice(names, "is the name of two checkpoints", "Give each a name: NAME=PATH.")
    apart = _differences(evaluated, force)
    base = _role("--base", base, BASE, names)
    finetuned = _role("--finetuned", finetuned, FINETUNED, names)
    along = tuple(_known("--line", name, names) for name in line) or line_by_names(names)
    against = finetuned or names[0]
    found = tables([pooled_groups(one) for one in evaluated], against, base, finetuned)
    inside, outside = domains(found, in_domain, out_of_domain)
    return Comparison(
        tuple(names), tuple(one.source for one in evaluated), against, base, finetuned, along,
        found, inside, outside, tuple(apart), tuple(_notes(evaluated)),
    )  # fmt: skip


def named_paths(
    checkpoints: Mapping[str, Reference] | Sequence[Reference],
) -> list[tuple[str, str]]:
    """Names and paths; the name is empty where none was given.

    Raises:
        UsageError: there is none, or a path is given twice.
    """
    if isinstance(checkpoints, (str, Path)):
        checkpoints = [checkpoints]
    if isinstance(checkpoints, Mapping):
        named = [(str(name), str(path)) for name, path in checkpoints.items()]
    else:
        named = [_parted(str(word)) for word in checkpoints]
    if not named:
        raise UsageError("compare", "has nothing to compare", "Name evaluations: NAME=PATH.")
    real = [os.path.realpath(path) for _, path in named]
    _refuse_twice(real, "is given twice", "Name each evaluation once.")
    return named


def _parted(word: str) -> tuple[str, str]:
    """Name and path of `NAME=PATH`; of a path alone, the name is empty."""
    name, equals, path = word.partition("=")
    is_named = equals and "/" not in name and not os.path.exists(word)
    return (name, os.path.expanduser(path)) if is_named else ("", word)


def _refuse_twice(words: Sequence[str], what: str, do: str) -> None:
    twice = next((word for word, count in Counter(words).items() if count > 1), None)
    if twice is not None:
        raise UsageError(twice, what, do)


def _role(option: str, name: str | None, usual: str, names: Sequence[str]) -> str | None:
    """The checkpoint with a role: the one named, or the only one with the usual name."""
    if name is not None:
        return _known(option, name, names)
    found = [each for each in names if each.rpartition("/")[2] == usual]
    return found[0] if len(found) == 1 else None


def _known(option: str, name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise UsageError(option, f"there is no checkpoint {name!r}", did_you_mean(name, names))
    return name


def _differences(evaluated: Sequence[Evaluated], force: bool) -> list[str]:
    """What differs from the first evaluation that has the same task; refused without `force`."""
    found: dict[str, None] = {}
    for place, one in enumerate(evaluated):
        compared: set[str] = set()
        for first in evaluated[:place]:
            for each in differences(first, one, compared):
                found[f"{first.name} and {one.name}: {each}"] = None
            compared |= first.settings.keys()
    if found and not force:
        do = "Evaluate all on the same items, or pass --force."
        raise InputRefused("compare", f"evaluations have {listed(found, 'difference', 3)}", do)
    return list(found)


def _notes(evaluated: Sequence[Evaluated]) -> Iterable[str]:
    """The notes of the evaluations, and metrics that not all of them have."""
    for one in evaluated:
        yield from (f"{one.name}: {note}" for note in dict.fromkeys(one.notes))
    metrics = dict.fromkeys(metric for one in evaluated for metric in one.scores)
    for metric in metrics:
        lacking = [one.name for one in evaluated if metric not in one.scores]
        if lacking:
            yield f"{metric}: not measured for {', '.join(lacking[:5])}"
