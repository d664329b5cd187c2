"""Families built small, and saved with what their module trees tell."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .configs import Family, families, small_config
from .truth import truth

SECONDS = 60  # the most that one family may take for one thing
PARAMETERS = 12_000_000  # the most that one family may have


def build(cache: Path, only: list[str]) -> dict[str, str]:
    """Build the families that the cache does not hold yet; name -> "built" or why not."""
    outcome: dict[str, str] = {}
    for family in families():
        folder = cache / family.name
        if only and family.name not in only:
            continue
        if not (folder / "truth.json").exists():
            _, reason = within(SECONDS, lambda family=family, folder=folder: save(family, folder))
            if reason:
                shutil.rmtree(folder, ignore_errors=True)
                print(f"{family.name}: {reason}", file=sys.stderr)
        outcome[family.name] = "built" if (folder / "truth.json").exists() else str(reason)
    return outcome


def save(family: Family, folder: Path) -> None:
    """Build one family, and save it with its truth."""
    import transformers

    model_class = getattr(transformers, family.architecture)
    with (
        contextlib.suppress(NotImplementedError),
        torch.device("meta"),
    ):  # some compute as they build
        size = sum(p.numel() for p in model_class(small_config(family)).parameters())
        if size > PARAMETERS:
            raise ValueError(f"{size:,} parameters remain")
    torch.manual_seed(0)
    model = model_class(small_config(family)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                usual = parameter.abs() < 100  # transformers leaves some uninitialised
                parameter.copy_(torch.where(usual, parameter, 0.0))
                parameter += 0.02 * torch.randn(parameter.shape)
    model.to(torch.bfloat16)
    model.save_pretrained(folder)
    found = {"family": family.name, "model_type": family.model_type} | truth(model, folder)
    (folder / "truth.json").write_text(json.dumps(found, indent=1))


def within(seconds: int, work: Callable[[], Any]) -> tuple[Any, str | None]:
    """(what `work` returned, or None; why it failed, in a sentence, or None)."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        return work(), None
    except Exception as error:  # a family that fails is a finding, not an end
        text = " ".join(str(error).split())
        return None, f"{type(error).__name__}: {text[-300:]}"
    finally:
        signal.alarm(0)
