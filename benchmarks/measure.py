"""What the benchmarks share: figures of a whole process, medians, the machine, a result file.

    python benchmarks/measure.py COMMAND ...

Run like that it is a launcher: it starts COMMAND and prints one line of JSON with its wall seconds,
CPU seconds and peak resident bytes after whatever COMMAND printed. A process of its own does this,
because Linux counts what the parent held at the moment of the fork towards the child's peak.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
UVMERGE_IMPORTS = "import torch, uvmerge.cli.main, uvmerge.api.run, uvmerge.engine.compute, numpy"
CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Run:
    """One finished process; `output` is what it wrote to stdout."""

    wall_s: float
    cpu_s: float  # user and system
    peak_bytes: int  # largest resident set
    output: str


def process(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> Run:
    """Run `command` to its end and return its figures; a failure ends the benchmark."""
    launcher = [sys.executable, "-I", "-S", __file__, *map(str, command)]
    done = subprocess.run(
        launcher, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise SystemExit(f"failed with code {done.returncode}: {' '.join(map(str, command))}")
    *output, figures = done.stdout.splitlines()
    return Run(**json.loads(figures), output="\n".join(output))


def imports_peak(statement: str, python: str | Path = sys.executable) -> int:
    """Peak resident bytes of a process that only imports."""
    return process([python, "-c", statement]).peak_bytes


def settle() -> None:
    """Wait until the disk is quiet: freed blocks are discarded late."""
    os.sync()
    time.sleep(2)


def read_through(*folders: Path) -> None:
    """Read every file once, so that each contender finds it in the page cache."""
    for path in (path for folder in folders for path in folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.read(CHUNK_BYTES):
                pass


def medians(runs: Iterable[Run]) -> dict[str, Any]:
    """The median of each figure."""
    found = list(runs)
    return {
        "wall_s": round(statistics.median(run.wall_s for run in found), 3),
        "cpu_s": round(statistics.median(run.cpu_s for run in found), 3),
        "peak_bytes": int(statistics.median(run.peak_bytes for run in found)),
    }


def median_ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """The median over the rounds of ours / theirs."""
    return float(f"{statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.4g}")


def about(*packages: str) -> dict[str, Any]:
    """Date, machine and versions: what every result starts with."""
    versions = {name: metadata.version(name) for name in packages}
    return {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "processor": _processor(),
        "versions": {"python": platform.python_version(), **versions},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line[:10] == "model name")
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows as aligned text: the first column to the left, figures to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *rest in cells:
        figures = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *figures]))
    return "\n".join(lines)


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write `result` to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def launch(command: list[str]) -> int:
    """Run `command`, then print its figures; its exit status."""
    start = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    figures = {
        "wall_s": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,  # KiB on Linux
    }
    print(json.dumps(figures))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
