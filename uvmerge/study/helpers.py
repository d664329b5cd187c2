"""Processes beside this one that work on the same study, each on pairs that no other works on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunFailed

_CODE = (
    "import json, sys; from uvmerge.study.run import help_out; help_out(*json.loads(sys.argv[1]))"
)


def cores() -> int:
    """How many processes this one may run at once."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def helpers(count: int, out: Path, only: str | None, seeds: int, quick: bool) -> Iterator[None]:
    """Start `count` processes, and wait for them at the end of the block; an error in it ends them.

    Raises:
        RunFailed: one of them failed; it has said why on stderr.
    """
    command = [sys.executable, "-c", _CODE, json.dumps([str(out), only, seeds, quick])]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command, env=alone) for _ in range(count)]
    try:
        yield
        codes = [process.wait() for process in started]
    except BaseException:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        raise
    if any(codes):
        what = f"a process that worked on it ended with code {max(codes, key=abs)}"
        raise RunFailed(out, what, "The same command goes on; --jobs 1 shows the error.")
