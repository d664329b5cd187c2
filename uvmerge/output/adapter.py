"""An output that is a PEFT adapter: factors put together in one file, the config, what was left out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import xxhash

from ..checkpoint import header
from ..checkpoint.adapter import CONFIG, WEIGHTS
from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import spelled
from ..checkpoint.stacks import one_name
from ..errors import InputRefused, counted, listed
from ..plan.emission import FACTORS, LEAST_ERROR, Target
from ..plan.steps import Plan
from ..text import brief
from .sidefiles import SideFile
from .writer import Staging, changed_since

NAMES = (CONFIG, WEIGHTS)
_SHOWN = 5  # tensors that a refusal names
_GENERATING = ("ForCausalLM", "LMHeadModel")


def refuse_misfits(plan: Plan, records: Mapping[str, Any]) -> None:
    """Refuse an edit of which the factors hold too little, or that is no edit at all.

    Raises:
        InputRefused: names the tensors, each with the share of its edit that would be lost.
    """
    emission = plan.emission
    assert emission is not None
    if not any(entry["rank"] for entry in records.values()):
        what = f"no matrix differs from that of the {spelled(emission.against)} model"
        raise InputRefused("--emit adapter", what, "There is nothing to write.")
    misfits = {
        label: entry for label, entry in records.items() if not emission.holds(entry["error"])
    }
    if not misfits or emission.lossy:
        return
    most = sorted(misfits, key=lambda label: (-misfits[label]["error"], label))
    named = ", ".join(f"{brief(name)} ({_lost(misfits[name])})" for name in most[:_SHOWN])
    more = f" and {len(most) - _SHOWN:,} more" if len(most) > _SHOWN else ""
    error = max(emission.error, LEAST_ERROR)
    raise InputRefused(
        "--emit adapter",
        f"does not hold the edit of {counted(len(misfits), 'tensor')} to {error:g}: {named}{more}",
        "--lossy writes what fits; a larger --adapter-rank or --adapter-error may be enough for"
        " matrices.",
    )


def _lost(entry: Mapping[str, Any]) -> str:
    """What is lost of one edit: `all of a change by 0.2 %`, or `error 0.03 at rank 8`."""
    if not entry["rank"]:
        return f"error 1, all of a change by {100 * entry['relative_change']:.2g} %"
    return f"error {entry['error']:.2g} at rank {entry['rank']}"


def summary(records: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter holds: matrices, ranks, tensors left out, and the relative errors.

    `error` is relative to the edit, `finetuning_error` to the fine-tuning, both of the matrices that
    have factors; `…_in_all` are those over all tensors. Each is ‖what is lost‖_F / ‖all‖_F.
    """
    kept = [entry for entry in records.values() if entry["rank"]]
    ranks = [entry["rank"] for entry in kept]
    found: dict[str, Any] = {
        "matrices": len(kept),
        "rank": [min(ranks, default=0), max(ranks, default=0)],
        "left_out": [n for n, entry in records.items() if entry["changed"] and not entry["rank"]],
    }
    for of in ("", "finetuning_"):
        if any(f"{of}norm" in entry for entry in kept):
            found[f"{of}error"] = _in_all(kept, of)
            found[f"{of}error_in_all"] = _in_all(records.values(), of)
    return found


def told(found: Mapping[str, Any]) -> str:
    """A `summary` in words."""
    low, high = found["rank"]
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    words = (
        f"factors of {counted(found['matrices'], 'matrix')}, {ranks}, error {found['error']:.2g}"
    )
    if "finetuning_error" in found:
        within, in_all = found["finetuning_error"], found["finetuning_error_in_all"]
        words += f"; of the fine-tuning they miss {within:.2g}, of that of all tensors {in_all:.2g}"
    left = found["left_out"]
    return f"{words}; left out: {listed(left, 'tensor', 3)}" if left else words


def rows(plan: Plan, records: Mapping[str, Any]) -> Iterator[str]:
    """A line for each kind of tensor over all layers: ranks, and the smallest and largest error."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for step in plan.steps:
        layer = step.place.layer
        kind = step.tensor if layer is None else one_name(step.tensor, layer)
        found = (records[block.view.label] for block in step.blocks)
        groups.setdefault(kind, []).extend(entry for entry in found if entry["changed"])
    for kind, entries in groups.items():
        if entries:
            words = f"rank {_span(entries, 'rank')}, error {_span(entries, 'error')}"
            if "finetuning_error" in entries[0]:
                words += f", of the fine-tuning {_span(entries, 'finetuning_error')}"
            yield f"{kind}: {words}"


def _span(entries: Sequence[Mapping[str, Any]], key: str) -> str:
    low, high = (f"{f(entry[key] for entry in entries):.2g}" for f in (min, max))
    return low if low == high else f"{low} to {high}"


def _in_all(entries: Iterable[Mapping[str, Any]], of: str) -> float:
    """A relative error over several tensors, from that of each and its norm."""
    size, error = f"{of}norm", f"{of}error"
    pairs = [(entry[size], entry[error]) for entry in entries if size in entry]
    whole = math.hypot(*(norm for norm, _ in pairs))
    return float(f"{math.hypot(*(n * e for n, e in pairs)) / whole if whole else 0.0:.3g}")


def assemble(plan: Plan, staging: Staging, records: Mapping[str, Any]) -> None:
    """Put the staged factors together in one file, whose header tells the rank of each.

    Raises:
        RunFailed: factors are not those that were staged.
    """
    assert plan.emission is not None
    kept = list(_kept(plan, records))
    dtype = plan.emission.dtype
    wanted = [(n, dtype, shape) for _, target, k in kept for n, shape in target.tensors(k)]
    section, entries = header.build(wanted, {"format": "pt"})
    size_bytes = len(section) + sum(entry.size_bytes for entry in entries)
    staging.create_file(WEIGHTS, section, size_bytes)
    position = len(section)
    for offset, target, k in kept:
        count, hasher, at = target.size_bytes(k, dtype), xxhash.xxh3_128(), position
        for chunk in staging.chunks(FACTORS, offset, count):
            hasher.update(chunk)
            staging.write(WEIGHTS, at, chunk)
            at += len(chunk)
        if hasher.hexdigest() != staging.journal[FACTORS, offset]["xxh3_128"]:
            raise changed_since(FACTORS, offset, count)
        staging.finish(WEIGHTS, position, count, hasher.hexdigest())
        position += count


def _kept(plan: Plan, records: Mapping[str, Any]) -> Iterator[tuple[int, Target, int]]:
    """(where the factors are staged, their module, rank), in the order of the checkpoint."""
    for step in plan.steps:
        if step.target is not None and (k := records[step.blocks[0].view.label]["rank"]):
            yield step.offset, step.target, k


def config(
    plan: Plan, records: Mapping[str, Any], against: Checkpoint, hub_id: str | None
) -> SideFile:
    """The `adapter_config.json`: every rank is said, every scaling is 1.

    Args:
        against: the checkpoint that the adapter is for.
        hub_id: its Hub id, where the user gave one.
    """
    kept = [(target, k) for _, target, k in _kept(plan, records)]
    most = max(k for _, k in kept)
    ranks = {target.module: k for target, k in kept if k != most}
    classes = against.config.get("architectures") or [""]
    generates = isinstance(classes, list) and str(classes[0]).endswith(_GENERATING)
    maps = [target for target, _ in kept if not target.is_embedding]
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if generates else None,
        "base_model_name_or_path": hub_id or against.label,
        "revision": None if hub_id else against.commit,
        "inference_mode": True,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "target_modules": [target.module for target, _ in kept],
        "modules_to_save": None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": bool(maps) and all(target.transposed for target in maps),
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }
    return SideFile.of(CONFIG, (json.dumps(content, indent=2) + "\n").encode())
