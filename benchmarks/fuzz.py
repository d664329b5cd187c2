"""Damaged files for every parser: no exception, no hang, nothing damaged believed.

    python benchmarks/fuzz.py [--inputs 1000000] [--minutes 10] [--fresh]

Mutants of good files (benchmarks/fuzzing) go to each parser in this process, in equal numbers. An
input must be refused with an error of uvmerge's, or be read for what it is, within 2 s of CPU time
and 1 GB of memory. Each input is determined by the seed, the target and its number, so that a run
that was stopped goes on where it stopped: run the same command again. Inputs that failed are tried
again first. Writes benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))

from fuzzing.targets import TARGETS, Target
from measure import RESULTS, about, table, write_result

SEED, LIMIT_S, LIMIT_BYTES, SHOWN_FAILURES = 20261126, 2.0, 1 << 30, 50
BATCH = 1000  # inputs of one target between two looks at the clock


class TooSlow(Exception):
    """An input took more than `LIMIT_S` of CPU time."""


@dataclass
class Tally:
    """What became of the inputs of one target.

    Attributes:
        inputs: how many have been judged; also the number of the next one.
        failures: of each failing input its number and the error, and of the first ones the input.
    """

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    slowest_s: float = 0.0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        """The tally as JSON-able data."""
        return {
            "inputs": self.inputs, "outcomes": dict(sorted(self.outcomes.items())),
            "cpu_s": round(self.cpu_s, 2), "slowest_s": round(self.slowest_s, 4),
            "failures": self.failures,
        }  # fmt: skip

    @classmethod
    def read(cls, data: dict[str, Any]) -> Tally:
        """The tally that `as_data` gave."""
        return cls(**data | {"outcomes": Counter(data["outcomes"])})


def run(target: Target, tally: Tally, count: int) -> None:
    """Judge the next `count` inputs of a target."""
    for number in range(tally.inputs, tally.inputs + count):
        data = target.input(random.Random(f"{SEED} {target.name} {number}"))
        started = time.process_time()
        failure = _failure(target, data, tally.outcomes)
        spent = time.process_time() - started
        tally.cpu_s += spent
        tally.slowest_s = max(tally.slowest_s, spent)
        if failure:
            kept: dict[str, Any] = {"number": number, "error": failure}
            if len(tally.failures) < SHOWN_FAILURES:
                kept["input_b85"] = base64.b85encode(data[:4000]).decode()
            tally.failures.append(kept)
    tally.inputs += count


def _failure(target: Target, data: bytes, outcomes: Counter[str]) -> str:
    """What went wrong with an input; empty where nothing did."""
    try:
        with _at_most(LIMIT_S):
            outcomes[target.judge(data)] += 1
    except Exception as error:
        outcomes["failed"] += 1
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {error}"[:400]
    return ""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in a block that takes more CPU time."""
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {LIMIT_S:g} s")


@contextmanager
def guarded() -> Iterator[None]:
    """Limits of time and memory for everything inside the block."""
    before = signal.signal(signal.SIGVTALRM, _too_slow)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    now = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + LIMIT_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


def quick_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for a while: in memory where the system has such a place."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


def targets(folder: Path) -> list[Target]:
    """Every target, each with a folder of its own."""
    return [kind(folder / kind.name) for kind in TARGETS]


def retried(target: Target, tally: Tally) -> None:
    """Judge the failing inputs of an earlier run again; those that pass are failures no more."""
    earlier, tally.failures = tally.failures, []
    for failure in earlier:
        tally.outcomes["failed"] -= 1
        data = target.input(random.Random(f"{SEED} {target.name} {failure['number']}"))
        if again := _failure(target, data, tally.outcomes):
            tally.failures.append(failure | {"error": again})
    tally.outcomes += Counter()  # without zeros


def _save(tallies: dict[str, Tally]) -> Path:
    found = {name: tally.as_data() for name, tally in tallies.items()}
    sums = {
        "seed": SEED, "limit_s": LIMIT_S, "limit_bytes": LIMIT_BYTES,
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "failed": sum(tally.outcomes["failed"] for tally in tallies.values()),
        "cpu_s": round(sum(tally.cpu_s for tally in tallies.values()), 1),
    }  # fmt: skip
    versions = about("uvmerge", "torch", "safetensors", "pyyaml", "xxhash")
    return write_result("fuzz", versions | sums | {"targets": found})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--fresh", action="store_true", help="forget an earlier run")
    settings = options.parse_args()
    path, tallies = RESULTS / "fuzz.json", {kind.name: Tally() for kind in TARGETS}
    if path.exists() and not settings.fresh:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier["seed"] == SEED:
            tallies |= {name: Tally.read(data) for name, data in earlier["targets"].items()}
    each, stop = -(-settings.inputs // len(TARGETS)), time.monotonic() + 60 * settings.minutes
    with quick_folder() as folder, guarded():
        everything = targets(Path(folder))
        for target in everything:
            retried(target, tallies[target.name])
        while time.monotonic() < stop:
            open_targets = [t for t in everything if tallies[t.name].inputs < each]
            for target in open_targets:
                tally = tallies[target.name]
                run(target, tally, min(BATCH, each - tally.inputs))
            _save(tallies)
            if not open_targets:
                break
    print(f"written: {_save(tallies)}")
    rows = [("target", "inputs", "failed", "µs each", "slowest s")]
    for name, tally in tallies.items():
        mean = f"{1e6 * tally.cpu_s / max(1, tally.inputs):.0f}"
        rows.append(
            (name, tally.inputs, tally.outcomes["failed"], mean, f"{tally.slowest_s:.3f}")  # type: ignore[arg-type]
        )
    print(table(rows))


if __name__ == "__main__":
    main()
