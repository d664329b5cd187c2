"""`uvmerge study OUT`: work through the pairs of the lab, stage by stage, and write what was found.

Nothing that was measured is measured again, so that the study can be run in parts, stopped at any time,
and run by several processes at once: each takes pairs that no other one works on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import InputRefused, Locked, UsageError, listed
from ..operations.options import did_you_mean
from ..output.lock import lock_of, locked
from ..output.places import Reference, made_parents, refuse_read_only, target_of
from ..text import two_lines
from .helpers import helpers
from .journal import DONE, OtherHead
from .kinds import KINDS
from .lab import PAIRS, Lab
from .page import page
from .results import results, save
from .sizes import FULL, QUICK, QUICK_SEEDS, SEEDS, names
from .stage import Stage, stages

_NEEDED = ("peft", "matplotlib")
_WAIT_S = 60.0  # for another process that writes the results


@dataclass(frozen=True)
class Study:
    """What a study has found so far.

    Attributes:
        out: the folder.
        found: the results, as in `study.json`.
        left: pairs and stages that are not finished, as `part-0 prevention`.
        paths: of the files written.
    """

    out: Path
    found: dict[str, Any]
    left: tuple[str, ...]
    paths: tuple[Path, ...]

    def as_data(self) -> dict[str, Any]:
        """The results, and what is left, as JSON-able data."""
        return {**self.found, "left": list(self.left)}

    @property
    def left_said(self) -> str:
        """One line on what is not finished; empty where all is."""
        if not self.left:
            return ""
        return f"not finished: {listed(self.left, 'pair', 3)}. The same command goes on."

    def __str__(self) -> str:
        """The page, as a terminal shows it."""
        return page(self.found)

    def __repr__(self) -> str:
        stages_found = ", ".join(self.found["stages"]) or "nothing yet"
        return two_lines("Study", f"{self.out.name}: {stages_found}", f"{len(self.left)} left")


def run(
    out: Reference,
    *,
    only: str | None = None,
    seeds: int | None = None,
    pairs: int | None = None,
    quick: bool = False,
    jobs: int = 1,
    on_done: Callable[[str], None] | None = None,
) -> Study:
    """Measure what has not been measured yet, and write all results to `out`.

    Args:
        out: the folder: of the pairs, `study.json`, `study.md`, and a CSV file and a figure for each
            stage. One that an earlier call has left is gone on with.
        only: the name of one stage; by default all.
        seeds: pairs of each regime, each with a seed of its own; by default 5, in a quick study 3.
        pairs: work on at most so many pairs in this call, which is then one process.
        quick: fewer settings, shorter trainings and fewer hands.
        jobs: how many processes work at once.
        on_done: called with a line of text when a pair is finished.

    Raises:
        UsageError: there is no such stage, or a package of the extra `study` is missing.
        InputRefused: `out` holds something else, or a study of other sizes or versions.
    """
    chosen = _chosen(only)
    for name, count in (("seeds", seeds), ("pairs", pairs), ("jobs", jobs)):
        if count is not None and count < 1:
            raise UsageError(f"--{name}", f"{count} is not a number from 1", "Take 5.")
    _refuse_missing()
    target = _target(out)
    lab = Lab(target, QUICK if quick else FULL)
    seeds = seeds or (QUICK_SEEDS if quick else SEEDS)
    beside = 0 if pairs is not None else jobs - 1
    with made_parents([target]):
        (target / PAIRS).mkdir(parents=True, exist_ok=True)
    with helpers(beside, target, only, seeds, quick):
        _work(lab, chosen, seeds, pairs, on_done or (lambda line: None))
    with _waiting(lock_of(target)):
        found = results(lab, seeds)
        written = save(found, target) if found["stages"] else []
    return Study(target, found, tuple(_left(lab, chosen, seeds)), tuple(written))


def help_out(out: str, only: str | None, seeds: int, quick: bool) -> None:
    """Work on a study that another process leads and writes the results of."""
    lab = Lab(Path(out), QUICK if quick else FULL)
    _work(lab, _chosen(only), seeds, None, lambda line: print(line, file=sys.stderr, flush=True))


def _chosen(only: str | None) -> list[Stage]:
    known = stages()
    if only is not None and only not in known:
        raise UsageError("--only", f"there is no stage {only!r}", did_you_mean(only, list(known)))
    return [known[only]] if only is not None else list(known.values())


def _refuse_missing() -> None:
    missing = next((name for name in _NEEDED if find_spec(name) is None), None)
    if missing is not None:
        raise UsageError("study", f"needs {missing}", "pip install 'uvmerge[study]'")


def _target(out: Reference) -> Path:
    target = target_of(out)
    if target.exists() and not target.is_dir():
        raise UsageError(out, "is a file", "Name a folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / PAIRS).is_dir():
        what = "is not empty, and holds no study"
        raise InputRefused(target, what, "Name another folder.")
    refuse_read_only(out, next(p for p in (target, *target.absolute().parents) if p.is_dir()))
    return target


def _left(lab: Lab, chosen: list[Stage], seeds: int) -> Iterator[str]:
    """What is not finished, as `part-0 prevention`."""
    for regime, seed in names(seeds, lab.sizes.quick):
        entries = lab.entries(regime, seed)
        for stage in chosen:
            if regime in stage.regimes and (stage.name, DONE) not in entries:
                yield f"{regime}-{seed} {stage.name}"


def _work(
    lab: Lab, chosen: list[Stage], seeds: int, most: int | None, say: Callable[[str], None]
) -> None:
    """Work on the pairs that are not finished and that no other process works on.

    Those that take longest come first, so that several processes end at about the same time.
    """
    done = 0
    for regime, seed in sorted(
        names(seeds, lab.sizes.quick), key=lambda name: -_work_on(name[0], chosen)
    ):
        entries = lab.entries(regime, seed)
        todo = [s for s in chosen if regime in s.regimes and (s.name, DONE) not in entries]
        if not todo or done == most:
            continue
        start = time.process_time()
        try:
            for stage in todo:
                with lab.opened(regime, seed, stage.name) as pair:
                    begun = time.process_time()
                    stage.measure(pair)
                    spent = round(time.process_time() - begun, 2)
                    pair.once(DONE, partial(float, spent))
        except Locked:
            say(f"{regime}-{seed}: another process works on it")
            continue
        except OtherHead as error:
            say(f"{regime}-{seed}: left as it is, {error.what}")
            continue
        done += 1
        spent = time.process_time() - start
        say(f"{regime}-{seed}: {', '.join(s.name for s in todo)} done in {spent:.0f} s of CPU")


def _work_on(regime: str, chosen: list[Stage]) -> int:
    """About how much there is to do on a pair: its stages, and how large its matrices are."""
    return sum(regime in stage.regimes for stage in chosen) * KINDS[regime].width ** 2


@contextmanager
def _waiting(lock: Path) -> Iterator[None]:
    """Hold a lock that other processes hold for moments."""
    until = time.monotonic() + _WAIT_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(lock))
                break
            except Locked:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield
