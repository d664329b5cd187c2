"""A seeded sample of the kills of benchmarks/kills.py: each is followed by the same command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "kills.py"
RESULTS = SCRIPT.parent / "results" / "kills.json"


def test_killed_at_twenty_points_every_command_ends_as_if_undisturbed(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, "--sample", "20"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].split() == ["all", "20", "0"]


def test_the_results_are_those_of_a_thousand_kills_of_every_command() -> None:
    found = json.loads(RESULTS.read_text())
    assert found["kills"] >= 1000 and found["wrong"] == []
    kinds = {"creat", "fsync", "mkdir", "pwrite", "rename", "link", "unlink"}
    for name in ("restore", "sweep", "--factors", "--overwrite", "--report", "demo"):
        assert kinds <= found["commands"][name]["kills_before"].keys(), name
    assert found["commands"]["diff --out"]["kills"] > 10
