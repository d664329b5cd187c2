"""Run the command line inside the test process, or as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import uvmerge.cli.main


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


def uv(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    """`uvmerge WORDS…` in this process."""
    arguments, sys.argv = sys.argv, ["uvmerge", *map(str, words)]
    capsys.readouterr()
    try:
        uvmerge.cli.main.main()
        code = 0
    except SystemExit as leave:
        code = int(leave.code or 0)
    finally:
        sys.argv = arguments
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)


def process(
    *words: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> Outcome:
    """`python -m uvmerge WORDS…` as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "uvmerge", *map(str, words)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)
