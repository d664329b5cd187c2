"""How a search asks what a checkpoint is worth: by a command, or by a function.

The command is split into words and run without a shell, in a session of its own. In its words, `{}`
is the folder of the checkpoint, `{out}` a fresh folder, and `{split}` the half of the items: `search`
or `report`. It prints one JSON object of numbers; metrics called TASK.METRIC are read from what
lm-evaluation-harness (or another that writes items line by line) has left in `{out}`.
"""

from __future__ import annotations

import inspect
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..engine.settings import Control
from ..errors import InputRefused, Interrupted, RunFailed, UsageError
from ..operations.options import did_you_mean
from ..output import lock, manifest
from ..output.tree import Tree
from ..tasks.evaluations import read_evaluation
from ..tasks.goals import LARGEST, Goal
from ..tasks.scores import NO_FILTER, Items, Score, score_of_items
from ..text import brief, duration

SEARCH, REPORT = "search", "report"  # the halves
_PRINTED_BYTES = 1 << 20
_POLL_S = 0.05
_GRACE_S = 3.0  # between asking a command to end and ending it
RUNNING = (
    "running.json"  # names the command that is running, for a search that goes on after a kill
)

Returned = Mapping[str, "float | Sequence[float] | Score"]


class EvaluationFailed(RunFailed):
    """The evaluation of one checkpoint failed; the search goes on with another setting."""


class Evaluator(Protocol):
    """What tells the worth of a checkpoint."""

    @property
    def identity(self) -> Any:
        """What has to be the same for a search to be resumed, as JSON-able data."""
        ...

    @property
    def has_halves(self) -> bool:
        """Whether it asks the items to search on and those to report on apart."""
        ...

    def scores(self, checkpoint: Path, half: str, folder: Path) -> dict[str, Score]:
        """A score for every goal.

        Args:
            half: `search` or `report`.
            folder: where the evaluator may leave what it wrote; it is not there yet.

        Raises:
            EvaluationFailed: there is no value for a goal, or none that can be true.
        """
        ...


@dataclass
class CommandEvaluator:
    """An evaluator that runs a command.

    Args:
        words: of the command, with `{}` in one of them.
        goals: what to read.
        timeout_s: after which the command is ended; None for never.
    """

    words: Sequence[str]
    goals: Sequence[Goal]
    timeout_s: float | None
    control: Control

    @classmethod
    def parse(
        cls, command: str, goals: Sequence[Goal], timeout_s: float | None, control: Control
    ) -> CommandEvaluator:
        """The evaluator of a command as it is typed.

        Raises:
            UsageError: it cannot be split into words, does not say where the checkpoint goes, or its
                program is not there.
        """
        try:
            words = shlex.split(command)
        except ValueError as error:
            do = "Close every quote; the command is run without a shell."
            raise UsageError("--eval", f"cannot be split into words: {error}", do) from None
        if not any("{}" in word for word in words):
            do = "Write {} where the folder of the checkpoint goes: --eval 'python eval.py {}'."
            raise UsageError("--eval", "does not name the checkpoint", do)
        if shutil.which(words[0]) is None:
            what = f"there is no program {brief(words[0])}"
            raise UsageError("--eval", what, "Name one that can be run; there is no shell.")
        return cls(words, goals, timeout_s, control)

    @property
    def identity(self) -> Any:
        """The words of the command."""
        return list(self.words)

    @property
    def has_halves(self) -> bool:
        """Whether the command takes `{split}`."""
        return any("{split}" in word for word in self.words)

    def scores(self, checkpoint: Path, half: str, folder: Path) -> dict[str, Score]:
        """Run the command and read the goals from what it printed and wrote."""
        folder.mkdir(parents=True)
        out = folder / "out"
        out.mkdir()
        values = {"{}": checkpoint, "{out}": out, "{split}": half}
        words = [_filled(word, values) for word in self.words]
        printed = self._run(words, folder)
        takes_out = any("{out}" in word for word in self.words)
        written = {goal.name for goal in self.goals if takes_out and "." in goal.name}
        found: dict[str, Score] = {}
        if written:
            found |= _written(out, self.goals, written)
        if len(written) < len(self.goals):
            rest = [goal.name for goal in self.goals if goal.name not in written]
            found |= as_scores(_object(printed, folder), rest, "the command")
        return found

    def _run(self, words: Sequence[str], folder: Path) -> bytes:
        """Run a command to its end, and end what it has left running; returns what it printed."""
        running = folder.parent / RUNNING
        with open(folder / "stdout", "w+b") as printed, open(folder / "stderr", "wb") as complained:
            try:
                child = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=printed, stderr=complained,
                    start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                raise EvaluationFailed(words[0], f"cannot be run: {error}", "") from None
            try:
                manifest.write_whole(running, manifest.to_bytes(lock.owner(child.pid)))
                code = self._waited(child, words)
            finally:
                end_group(child.pid, child)
                running.unlink(missing_ok=True)
            printed.seek(0)
            text = printed.read(_PRINTED_BYTES + 1)
        if code:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            do = f"Its messages are in {folder / 'stderr'}."
            raise EvaluationFailed("--eval", f"ended with {how}{_last_words(folder)}", do)
        return text

    def _waited(self, child: subprocess.Popen[bytes], words: Sequence[str]) -> int:
        started = time.monotonic()
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(_POLL_S)
            if self.control.stop.is_set():
                raise Interrupted("search", self.control.signal_number)
            spent = time.monotonic() - started
            if self.timeout_s is not None and spent > self.timeout_s:
                what = f"did not end within {duration(self.timeout_s)}, and was ended"
                raise EvaluationFailed("--eval", what, "Allow more with --trial-timeout.")


@dataclass
class FunctionEvaluator:
    """An evaluator that calls a function of Python.

    Args:
        function: is given the folder of a checkpoint, and the half (`search` or `report`) if it takes
            two arguments; returns by goal a number, or one number for each item.
    """

    function: Callable[..., Returned]
    goals: Sequence[Goal]

    @property
    def identity(self) -> Any:
        """The name of the function."""
        return getattr(
            self.function, "identity", getattr(self.function, "__qualname__", "function")
        )

    @property
    def has_halves(self) -> bool:
        """Whether the function takes the half beside the checkpoint."""
        return len(inspect.signature(self.function).parameters) > 1

    def scores(self, checkpoint: Path, half: str, folder: Path) -> dict[str, Score]:
        """Call the function and check what it returns."""
        try:
            found = self.function(*((checkpoint, half) if self.has_halves else (checkpoint,)))
        except (RunFailed, InputRefused, UsageError, Interrupted):
            raise
        except Exception as error:
            what = f"raised {type(error).__name__}: {brief(error)}"
            raise EvaluationFailed("evaluate", what) from error
        return as_scores(found, [goal.name for goal in self.goals], "the function")


def as_scores(found: Any, names: Sequence[str], who: str) -> dict[str, Score]:
    """The score of each goal in what an evaluation gave.

    Raises:
        EvaluationFailed: a goal is missing, or its value is no finite number of sensible size.
    """
    if not isinstance(found, Mapping):
        raise EvaluationFailed("evaluation", f"{who} gave no object of numbers")
    scores = {}
    for name in names:
        if name not in found:
            hint = did_you_mean(name, map(str, found)) if found else "There are no metrics in it."
            raise EvaluationFailed("evaluation", f"{who} gave no {brief(name)}", hint)
        score = _score(found[name])
        if score is None or score.value is None or not abs(score.value) <= LARGEST:
            given = brief(
                found[name] if not isinstance(found[name], Score) else score and score.value
            )
            what = f"{brief(name)} is {given}, which is no number between -1e12 and 1e12"
            raise EvaluationFailed("evaluation", what, "Print a finite number.")
        scores[name] = score
    return scores


def _score(value: Any) -> Score | None:
    """A number, a number for each item, or a score; None for anything else."""
    if isinstance(value, Score):
        return value
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        try:
            return Score(float(value), 0)
        except OverflowError:
            return None
    if isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        items = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if items.ndim != 1 or not len(items) or not np.isfinite(items).all():
        return None
    return score_of_items(Items([str(i).encode() for i in range(len(items))]), items)


def _filled(word: str, values: Mapping[str, object]) -> str:
    for key, value in values.items():
        word = word.replace(key, str(value))
    return word


def _object(printed: bytes, folder: Path) -> Any:
    """The one JSON object that a command printed."""
    do = f"Print one JSON object of numbers, and all else on stderr; see {folder / 'stdout'}."
    if len(printed) > _PRINTED_BYTES:
        raise EvaluationFailed("--eval", f"printed more than {_PRINTED_BYTES:,} bytes", do)
    text = printed.decode(errors="replace").strip()
    if not text:
        do = "Print one JSON object of numbers, or name metrics TASK.METRIC and write to {out}."
        raise EvaluationFailed("--eval", f"printed nothing{_last_words(folder)}", do)
    try:
        found, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        what = f"printed no JSON object, but '{brief(text, 80)}'"
        raise EvaluationFailed("--eval", what, do) from None
    if text[end:].strip():
        what = f"printed more than one JSON object: '{brief(text, 80)}'"
        raise EvaluationFailed("--eval", what, do)
    return found


def _written(out: Path, goals: Sequence[Goal], names: set[str]) -> dict[str, Score]:
    """The scores of goals that are called TASK.METRIC, from what is written in `out`."""
    try:
        (evaluated,) = read_evaluation("out", out, False)
    except (InputRefused, ValueError) as error:
        what = f"left no evaluation that can be read: {error}".splitlines()[0]
        raise EvaluationFailed("--eval", what, f"Write it to {{out}}, here {out}.") from None
    found: dict[str, Score] = {}
    for metric, score in evaluated.scores.items():
        for name in (
            f"{metric.task}.{metric.name}",
            f"{metric.task}.{metric.name}.{metric.filter}",
        ):
            if name in names and (name not in found or metric.filter == NO_FILTER):
                found[name] = score
    return as_scores(found, sorted(names), "lm-evaluation-harness")


def _last_words(folder: Path) -> str:
    """The end of what a command wrote to stderr, as part of a sentence."""
    lines = (folder / "stderr").read_bytes()[-4096:].decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" ({brief(last, 160)})" if last else ""


def end_group(group: int, child: subprocess.Popen[bytes] | None = None) -> None:
    """End a command with every process of its group, politely first if it is still running."""
    if child is not None and child.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    if child is not None:
        child.wait()


def end_orphan(folder: Path) -> None:
    """End the command that a search which was killed has left running, if it is still the same."""
    with Tree.at(folder) as tree:
        if tree.status(RUNNING) is None:
            return
        try:
            found = json.loads(tree.read(RUNNING))
            pid = found["pid"]
            is_ours = not lock.is_elsewhere(found) and not lock.is_gone(found)
        except (ValueError, KeyError, TypeError):
            is_ours, pid = False, 0
        if is_ours and isinstance(pid, int) and pid > 1:
            end_group(pid)
        tree.remove(RUNNING)
