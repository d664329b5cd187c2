"""What uvmerge's edits do to a family: whether they run, edit where they should, and load again."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .probes import saved_tensors
from .reading import read, stored_apart

STRENGTH = 0.05  # norm of the fine-tuning, of each tensor's own
CHECKED = ("restore", "reset half", "interpolate half", "reset all", "interpolate to the base")


def edits(folder: Path) -> dict[str, Any]:
    """Each edit of a family and a fine-tuned twin of it: "right", or what is not.

    `loads` tells whether transformers loads and runs what was saved before any edit; where it does
    not, the edited checkpoints need not do better.
    """
    import uvmerge

    with tempfile.TemporaryDirectory() as room:
        twin, out = Path(room, "finetuned"), Path(room, "out")
        finetune(folder, twin)
        truth = json.loads((folder / "truth.json").read_text())
        before = loading_problem(folder, truth["architecture"])
        running = None if before else running_problem(folder)
        runs = _runs(folder, twin, out, truth)
        found: dict[str, Any] = {"loads": before or running or "right"}
        for name in CHECKED:
            try:
                wrong = runs[name]() or _loads(out, truth["architecture"], before, running)
                found[name] = wrong or "right"
            except uvmerge.InputRefused as refusal:
                found[name] = f"refused: {_said(refusal)}"
            except Exception as error:
                found[name] = _said(error)
            shutil.rmtree(out, ignore_errors=True)
    return found


def finetune(base: Path, twin: Path) -> None:
    """A copy of `base` with noise on every floating tensor, and its side files."""
    shutil.copytree(base, twin, ignore=shutil.ignore_patterns("truth.json"))
    generator = torch.Generator().manual_seed(1)
    for path in twin.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            metadata, names = file.metadata(), list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and tensor.numel():
                noise = torch.randn(tensor.shape, generator=generator)
                size = STRENGTH * tensor.float().norm() / tensor.numel() ** 0.5
                tensors[name] = (tensor.float() + size * noise).to(tensor.dtype)
        save_file(tensors, path, metadata=metadata)


def loading_problem(folder: Path, architecture: str) -> str | None:
    """What transformers says when it loads `folder`: an error, or keys that do not fit."""
    import transformers

    try:
        _, keys = getattr(transformers, architecture).from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:
        return _said(error).replace(str(folder), "the folder")
    wrong = [f"{len(keys[kind])} {kind}" for kind in sorted(keys) if keys[kind]]
    return ", ".join(wrong) or None


def _runs(
    base: Path, twin: Path, out: Path, truth: dict[str, Any]
) -> dict[str, Callable[[], str | None]]:
    """Each edit as a call that writes `out` and says what is wrong in it."""
    import uvmerge

    def run(operation: Callable[..., Any], **options: Any) -> None:
        operation(base, twin, out, **options)

    def reset_all() -> str | None:
        run(uvmerge.reset_layers, frac=1.0, stack=_read_stacks(base))
        return _layers_are(base, twin, out, truth)

    def to_the_base() -> str | None:
        run(uvmerge.interpolate, scale=0.0)
        return _all_are(base, out)

    return {
        "restore": lambda: run(uvmerge.restore, top=0.25),
        "reset half": lambda: run(uvmerge.reset_layers, frac=0.5),
        "interpolate half": lambda: run(uvmerge.interpolate, scale=0.5),
        "reset all": reset_all,
        "interpolate to the base": to_the_base,
    }


def _read_stacks(folder: Path) -> list[str]:
    """Names of all the stacks that uvmerge finds."""
    return list(read(folder).stacks)


def _layers_are(base: Path, twin: Path, out: Path, truth: dict[str, Any]) -> str | None:
    """Whether every tensor in a stack is the base's and every other one the fine-tuned one's."""
    theirs, tuned, ours = map(saved_tensors, (base, twin, out))
    stacks = {name: true.get("stack") for name, true in truth["tensors"].items()}
    wrong = [
        name
        for name in sorted(stacks.keys() - stored_apart(truth))
        if not _same(ours[name], (tuned if stacks[name] is None else theirs)[name])
    ]
    return _listed("not reset as the module tree says", wrong)


def _all_are(base: Path, out: Path) -> str | None:
    theirs, ours = map(saved_tensors, (base, out))
    if ours.keys() != theirs.keys():
        return f"other names: {sorted(ours.keys() ^ theirs.keys())[:3]}"
    return _listed("not the base's", [n for n in ours if not _same(ours[n], theirs[n])])


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _listed(what: str, names: list[str]) -> str | None:
    return f"{len(names)} tensors {what}, like {names[0]}" if names else None


def running_problem(folder: Path) -> str | None:
    """What is wrong with a forward pass of what is saved in `folder`, as `check --load` makes it."""
    from uvmerge.models.trial import trial

    try:
        return " ".join(trial(folder).problems) or None
    except Exception as error:  # no matter whose, it is not the edit's
        return _said(error)


def _loads(out: Path, architecture: str, before: str | None, running: str | None) -> str | None:
    """Whether `out` loads and runs as its base does, in transformers and by `uvmerge check`."""
    import uvmerge

    if (now := loading_problem(out, architecture)) != before:
        return f"transformers: {now or 'loads, though the base does not'}"
    try:
        uvmerge.check(out, load=before is None and running is None)
    except Exception as error:
        return f"check: {_said(error)}"
    return None


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
