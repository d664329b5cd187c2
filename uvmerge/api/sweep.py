"""One operation at several settings: a checkpoint for each, from one decomposition of each matrix.

    uvmerge sweep restore BASE FINETUNED OUTDIR --top 0.05,0.1,0.2,0.4

Each checkpoint has the bytes that the single command would have written. `sweep.json` beside the
checkpoints lists the settings of each folder and is written last.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import operations
from ..checkpoint.bounded import CONFIG_BYTES, read_json
from ..checkpoint.roles import BASE, FINETUNED
from ..errors import UsageError, counted
from ..operations import Operation
from ..output import manifest
from ..output.commands import Command, after_sweep
from ..output.disk import disk_errors
from ..output.places import Reference, local_folders, made_parents, refuse_read_only, target_of
from ..recipe.recipe import Recipe, RecipeStep
from ..text import brief, expanded, inert, two_lines
from .run import Result, run_all
from .series import series
from .settings import SweepSettings, split
from .surgery import generates_text

NAME, FORMAT = "sweep.json", 1
MOST_SETTINGS = 200
_FIXED = ("modules", "include", "exclude")  # filters that do not vary: their lists are values


@dataclass(frozen=True)
class Setting:
    """One point of the grid.

    Attributes:
        name: of the folder.
        varied: the options that differ between settings, by their keys in a recipe.
    """

    name: str
    varied: Mapping[str, Any]
    recipe: Recipe = field(repr=False)


@dataclass(frozen=True)
class Sweep:
    """What a sweep did.

    Attributes:
        folder: OUTDIR.
        settings: all settings, in the order of the grid.
        results: by the name of a setting, without settings whose folder was there already.
        next: what to do with the checkpoints; empty after a dry run.
    """

    folder: Path
    settings: Sequence[Setting]
    results: Mapping[str, Result]
    next: tuple[Command, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        count = f"{counted(len(self.settings), 'setting')}, {len(self.results):,} made now"
        names = ", ".join(setting.name for setting in self.settings)
        return two_lines("Sweep", f"{self.folder.name}: {count}", names)

    def __str__(self) -> str:
        """A line for each setting, as the command prints them."""
        return "\n".join(f"{inert(s.name)}: {self._said(s.name)}" for s in self.settings)

    def _said(self, name: str) -> str:
        result = self.results.get(name)
        if result is None:
            return "was there already"
        return result.summary if result.out is not None else repr(result.plan)

    def _repr_html_(self) -> str:
        """Bars of the median change of each setting; of settings that were there, none."""
        from .. import report

        made = {n: sorted(_changes(r.edits)) for n, r in self.results.items() if r.out is not None}
        rows = [
            (name, changes[len(changes) // 2] if changes else 0.0) for name, changes in made.items()
        ]
        text = "Median change of the matrices, of the fine-tuned norm"
        there = len(self.settings) - len(rows)
        others = f" ({there} not made now)" if there else ""
        return report.bars(f"{self.folder.name}: {text}{others}", rows)

    def as_data(self) -> dict[str, Any]:
        """The sweep as JSON-able data."""
        return {
            "out": str(self.folder),
            "settings": {s.name: dict(s.varied) for s in self.settings},
            "results": {name: result.as_data() for name, result in self.results.items()},
            "next": [command.line for command in self.next],
        }


def sweep(operation: str, *places: Reference, **options: Any) -> Sweep:
    """Run `operation` at every combination of settings and publish each output in its own folder.

    A folder that is there already, made from the same inputs by the same versions, is kept as it
    is, so that an interrupted sweep goes on where it stopped.

    Args:
        operation: the name of the operation, like `restore`.
        places: the checkpoints, as for a single run, and the folder for all outputs; they may also
            be given by name (`base`, `finetuned`, `out`).
        options: options of the operation and filters, where a list stands for several settings
            (`top=[0.05, 0.1]`, `layers=["0-3", "4-7"]`), and so does the text of a range
            (`top="0.1:0.5:0.1"`); and the settings of docs/options.md.

    Raises:
        UvmergeError: one of its subclasses in `uvmerge.errors`, which says what to do.
    """
    if options.pop("report", None) is not None:
        raise UsageError(
            "--report", "is for one output", "Compare all: uvmerge diff BASE OUTDIR/*."
        )
    shared, watch = split(SweepSettings, options)
    found = operations.get(operation)
    names = (*(operand.name for operand in found.operands), "out")
    named = {name: options.pop(name) for name in names if name in options}
    references, out = found.assign(places, named)
    settings = grid(found, options)
    target_of(out)  # refuses what no folder can be
    folder = expanded(out)
    tasks = [(setting.recipe, folder / setting.name) for setting in settings]
    if shared.dry_run or shared.estimate or shared.plan is not None:
        return _swept(folder, settings, run_all(tasks, references, shared, watch))
    with made_parents([folder]), _made(folder, references):
        results = run_all(tasks, references, shared, watch, keep_same=True)
    record = manifest.to_bytes(_record(operation, settings, folder))
    with disk_errors(folder / NAME, folder):
        manifest.write_whole(folder / NAME, record)
    return _swept(folder, settings, results, _following(found, references, folder, settings))


def _swept(
    folder: Path, settings: Sequence[Setting], found: Sequence[Result | None],
    following: tuple[Command, ...] = (),
) -> Sweep:  # fmt: skip
    results = {s.name: result for s, result in zip(settings, found) if result is not None}
    return Sweep(folder, settings, results, following)


def _following(
    operation: Operation, references: Mapping[str, Reference], folder: Path,
    settings: Sequence[Setting],
) -> tuple[Command, ...]:  # fmt: skip
    """What to do with the checkpoints of a sweep."""
    named = {role: str(reference) for role, reference in references.items()}
    base = None if operation.command == "interpolate" else named.get(BASE)
    outs = [str(folder / setting.name) for setting in settings]
    config = folder / settings[0].name / "config.json"
    content = read_json(config, CONFIG_BYTES) if config.is_file() else {}
    return after_sweep(base, named.get(FINETUNED), outs, generates=generates_text(content))


@contextmanager
def _made(folder: Path, references: Mapping[str, Reference]) -> Iterator[None]:
    """Make OUTDIR where it is missing; after an error, remove it again if it is new and empty."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(folder, "is a file", "Name a folder for the sweep's checkpoints.")
    inputs = map(os.path.realpath, local_folders(list(references.values())))
    if any(target_of(folder).is_relative_to(source) for source in inputs):
        raise UsageError(folder, "lies inside an input", "Write to a folder beside the inputs.")
    is_new = not folder.exists()
    if is_new:
        refuse_read_only(folder, folder.parent)
        with disk_errors(folder, folder.parent):
            folder.mkdir()
    try:
        yield
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def grid(operation: Operation, options: Mapping[str, Any]) -> list[Setting]:
    """Every combination of the options that are lists; the last option varies fastest."""
    known = {name: p for p in operation.parameters for name in p.names}
    lists: dict[str, list[Any]] = {}
    for key, value in options.items():
        parameter = known.get(key)
        name = key if parameter is None else parameter.name
        if isinstance(value, list) and key not in _FIXED:
            lists[name] = value
        elif parameter and parameter.type in (int, float) and isinstance(value, str):
            lists[name] = series(parameter, value)
        else:
            lists[name] = [value]
    varied = [key for key, values in lists.items() if len(values) > 1]
    count = math.prod(map(len, lists.values()))
    if count < 2:
        raise UsageError(
            "sweep", "one setting is no sweep", "Give an option several values: --top 0.1,0.2."
        )
    if count > MOST_SETTINGS:
        raise UsageError(
            "sweep", f"{count:,} settings are too many", f"At most {MOST_SETTINGS} at a time."
        )
    settings: dict[str, Setting] = {}
    for chosen in itertools.product(*lists.values()):
        given = dict(zip(lists, chosen))
        step = RecipeStep.parse(operation.command, given)
        words = {key.rstrip("_").replace("_", "-"): given[key] for key in varied}
        name = "_".join(f"{key}-{_word(value)}" for key, value in words.items())
        if name in settings:
            raise UsageError("sweep", f"the setting {name} is there twice", "Name it once.")
        settings[name] = Setting(name, words, Recipe((step,)))
    return list(settings.values())


def _word(value: object) -> str:
    """A value as it is spelled in the name of a folder."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(_word, value))
    text = f"{value:g}" if isinstance(value, float) else str(value).lower()
    if not re.fullmatch(r"[a-z0-9.,+%-]{1,80}", text):
        what = f"'{brief(value)}' cannot be a part of a folder's name"
        raise UsageError("sweep", what, "Sweep over numbers, words or layers.")
    return text


def _changes(edits: Mapping[str, Any]) -> list[float]:
    """The relative change of each edited matrix."""
    return [entry["relative_change"] for entry in edits.values()]


def _record(operation: str, settings: Sequence[Setting], folder: Path) -> dict[str, Any]:
    """The content of `sweep.json`, which holds no time and no path outside the folder."""
    entries = {}
    for setting in settings:
        content = manifest.read_checked(folder / setting.name) or {}
        edited = content.get("edited", {})
        changes = sorted(_changes(edited))
        entries[setting.name] = {
            "settings": dict(setting.varied),
            "edited": len(edited),
            "reset": len(content.get("reset", [])),
            "median_relative_change": changes[len(changes) // 2] if changes else 0.0,
        }
    first = manifest.read_checked(folder / settings[0].name) or {}
    recipe = first.get("recipe", {})
    return {
        "format": FORMAT,
        "operation": operations.get(operation).command,
        **{
            operand.name: recipe.get(operand.name) for operand in operations.get(operation).operands
        },
        "checkpoints": entries,
    }
