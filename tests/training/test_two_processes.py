"""DDP and FSDP2 in two processes on a CPU: the callback against the penalty in the loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo",
)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `two_processes.py` has measured."""
    folder = tmp_path_factory.mktemp("two")
    out = folder / "figures.json"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [str(HERE / "two_processes.py"), str(folder), str(out)]
    paths = [str(HERE), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    run = subprocess.run([*launch, *script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_ddp_with_accumulation_and_clipping(figures: dict[str, Any]) -> None:
    assert figures["ddp"]["to_loss"] <= 1e-6 and figures["ddp"]["drift"] > 1e-3


@pytest.mark.parametrize("case", ["", "clipped", "left", "right", "replicated"])
def test_fully_shard_with_rows_that_do_not_halve(figures: dict[str, Any], case: str) -> None:
    found = figures[f"fsdp {case}".strip()]
    assert found["to_plain"] > 5e-6  # the penalty bends the path
    ways = found.keys() & {"callback", "add_gradient", "penalty"}
    assert all(found[way] <= 1e-7 for way in ways) and "callback" in ways
    assert all(found[f"drift_{way}"] > 5e-4 for way in ways)


def test_adapters_under_fully_shard(figures: dict[str, Any]) -> None:
    assert figures["fsdp lora"]["lora"] <= 1e-6


def test_other_placements_are_refused_by_name(figures: dict[str, Any]) -> None:
    assert "q_proj.weight" in figures["columns"] or "down_proj.weight" in figures["columns"]
    assert "only rows may be sharded" in figures["columns"]


def test_a_penalty_first_asked_for_between_forward_and_backward_is_refused(
    figures: dict[str, Any],
) -> None:
    assert "Call bind(model) once, right after fully_shard" in figures["gathered"]
