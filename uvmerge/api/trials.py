"""The settings that a search tries, and how each ended: Optuna's journal, which outlasts kills.

The journal is read and written under the lock of OUTDIR, so that one process at a time has it open.
Optuna does not store the sampler, and its default differs between versions: it is always named here, and
seeded anew for each trial, because a sampler that is seeded once for each process would repeat its first
draws when a search goes on.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputRefused, UsageError, counted
from ..output.tree import Tree
from ..recipe.space import Choice, Range, Space
from ..tasks.goals import Goal

NAME = "search"
JOURNAL = "journal.log"
RANDOM_TRIALS = 10  # before the sampler has something to learn from
MOST_REDRAWS = 200
FAILED_IN_A_ROW = 3  # stop a search
_ERROR, _AGAIN, _SAME = "error", "again", "same"  # attributes of a trial
Values = dict[str, float | str]


@dataclass(frozen=True)
class Trial:
    """A setting that was tried.

    Attributes:
        number: in the journal.
        values: by name, as the space wants them.
        error: why it has no score; None where it has one.
    """

    number: int
    values: Values
    error: str | None = None


def import_optuna() -> Any:
    """The package, or a `UsageError` that says how to install it."""
    try:
        import optuna
    except ImportError as error:
        raise UsageError("search", "needs optuna", "pip install 'uvmerge[search]'") from error
    return optuna


class Trials:
    """The trials of one search; made by `opened`."""

    def __init__(self, study: Any, optuna: Any, space: Space, goals: Sequence[Goal], seed: int):
        self.study, self._optuna = study, optuna
        self._asked: dict[int, Any] = {}  # by number
        self.space, self.goals, self.seed = space, goals, seed

    @property
    def _all(self) -> list[Any]:
        return list(self.study.get_trials(deepcopy=False))

    def finished(self) -> list[Trial]:
        """The trials that ended, those that failed included, in order; each setting once."""
        states = self._optuna.trial.TrialState
        again = {t.user_attrs.get(_AGAIN) for t in self._all}
        found = []
        for t in self._all:
            error = t.user_attrs.get(_ERROR)
            ended = t.state == states.COMPLETE or (t.state == states.FAIL and error is not None)
            if ended and t.number not in again:
                found.append(Trial(t.number, self._values(t), error))
        return found

    def recover(self, known: Callable[[int], Sequence[float] | None]) -> None:
        """End the trials that a kill has left running; their settings are tried again.

        So are the last ones in a row that failed, since the cause may have been mended since.

        Args:
            known: the values of a trial whose evaluation had ended, else None.
        """
        states = self._optuna.trial.TrialState
        for t in [t for t in self._all if t.state == states.RUNNING]:
            values = known(t.number)
            if values is not None:
                self.tell(t.number, values)
                continue
            self.study.tell(t.number, state=states.FAIL)
            params = {**t.system_attrs.get("fixed_params", {}), **t.params}
            if params and _SAME not in t.user_attrs:
                self._enqueue(params, {_AGAIN: t.user_attrs.get(_AGAIN, t.number)})
        last = []
        for trial in reversed(self.finished()):
            if trial.error is None:
                break
            last.append(trial)
        for trial in reversed(last) if len(last) >= FAILED_IN_A_ROW else ():
            self._enqueue(dict(trial.values), {_AGAIN: trial.number})

    def ask(self) -> Trial | None:
        """A setting that was not tried yet; None where there is none left."""
        tried = {self._key(trial.values) for trial in self.finished()}
        if len(tried) >= self.space.count:
            return None
        for _ in range(MOST_REDRAWS):
            number = len(self._all)
            self.study.sampler = self._sampler(number)
            trial = self.study.ask()
            values = self._suggested(trial)
            self._asked[trial.number] = trial
            if self._key(values) not in tried:
                return Trial(trial.number, values)
            trial.set_user_attr(_SAME, True)
            self.study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
            self._enqueue(self._drawn(tried, number), {})
        return None

    def tell(self, number: int, values: Sequence[float]) -> None:
        """Note the values of a trial, worse by what they are short of the floors."""
        rows = list(zip(self.goals, values, strict=True))
        short = sum(goal.shortfall(value) for goal, value in rows)
        told = [value - short if goal.is_max else value + short for goal, value in rows]
        self.study.tell(number, told)

    def fail(self, number: int, error: str) -> None:
        """Note that a trial which was asked for failed, and why."""
        self._asked[number].set_user_attr(_ERROR, error)
        self.study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def _enqueue(self, params: dict[str, Any], attributes: dict[str, Any]) -> None:
        self.study.enqueue_trial(params, user_attrs=attributes)

    def _sampler(self, number: int) -> Any:
        seed = random.Random(f"{self.seed}-{number}").randrange(2**31)
        return self._optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=RANDOM_TRIALS, multivariate=False
        )

    def _suggested(self, trial: Any) -> Values:
        values: Values = {}
        for d in self.space.dimensions:
            if isinstance(d, Choice):
                values[d.name] = trial.suggest_categorical(d.name, list(d.words))
            elif d.whole:
                step = {} if d.step is None else {"step": int(d.step)}
                values[d.name] = trial.suggest_int(
                    d.name, int(d.low), int(d.high), log=d.log, **step
                )
            else:
                values[d.name] = trial.suggest_float(d.name, d.low, d.high, step=d.step, log=d.log)
        return values

    def _drawn(self, tried: set[str], number: int) -> Values:
        """A setting drawn evenly from those that were not tried, or at least drawn anew."""
        generator = random.Random(f"{self.seed}-again-{number}")
        values: Values = {}
        for _ in range(MOST_REDRAWS):
            values = {d.name: _draw(d, generator) for d in self.space.dimensions}
            if self._key(values) not in tried:
                break
        return values

    def _key(self, values: Values) -> str:
        tidy = {
            d.name: d.tidy(float(values[d.name])) if isinstance(d, Range) else values[d.name]
            for d in self.space.dimensions
        }
        return json.dumps(tidy)

    def _values(self, trial: Any) -> Values:
        return {d.name: trial.params[d.name] for d in self.space.dimensions}


def _draw(dimension: Range | Choice, generator: random.Random) -> float | str:
    if isinstance(dimension, Choice):
        return generator.choice(dimension.words)
    if dimension.step is not None:
        return dimension.low + dimension.step * generator.randrange(int(dimension.count))
    drawn = generator.uniform(dimension.low, dimension.high)
    return round(drawn) if dimension.whole else drawn


@contextmanager
def opened(folder: Path, space: Space, goals: Sequence[Goal], seed: int) -> Iterator[Trials]:
    """The trials in a folder, whose lock the caller holds.

    Raises:
        UsageError: optuna is not installed.
        InputRefused: the journal cannot be read.
    """
    optuna = import_optuna()
    mend(folder)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
            study = optuna.create_study(
                study_name=NAME, storage=optuna.storages.JournalStorage(backend),
                sampler=optuna.samplers.TPESampler(seed=seed), load_if_exists=True,
                directions=["maximize" if goal.is_max else "minimize" for goal in goals],
            )  # fmt: skip
            yield Trials(study, optuna, space, goals, seed)
    finally:
        optuna.logging.set_verbosity(before)


def mend(folder: Path) -> None:
    """Cut a journal back to its last newline, where a crash has torn its last line; and remove the
    lock of a process that was killed while it wrote.

    Optuna would raise an error at every later opening, once a line had been added to the torn one.

    Raises:
        InputRefused: a line in the middle cannot be read.
    """
    with Tree.at(folder) as tree:
        tree.remove(f"{JOURNAL}.lock")
        if tree.status(JOURNAL) is None:
            return
        content = tree.read(JOURNAL)
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                json.loads(line)
            except ValueError:
                what = f"line {number} of {counted(len(whole.splitlines()), 'line')} cannot be read"
                do = "Restore the file from a backup, or name another OUTDIR."
                raise InputRefused(folder / JOURNAL, what, do) from None
        if len(whole) < len(content):
            tree.write_whole(JOURNAL, whole)
