"""`extract_lora` and `merge_lora`: a fine-tuning as an adapter, and adapters as a whole model.

Neither has arithmetic of its own: the first is `truncate` written as an adapter for the base, the
second writes what any call reads where an adapter stands for a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint.adapter import is_adapter
from ..checkpoint.adapter_sums import sum_of
from ..checkpoint.roles import BASE, FINETUNED
from ..errors import InputRefused, UsageError, counted
from ..operations.options import exclusive
from ..output.places import Reference
from ..recipe.recipe import Recipe
from ..recipe.step import RecipeStep
from ..text import brief
from .lora_settings import DECIDED, EMITTED, EXTRACT_OPTIONS, MERGE_OPTIONS
from .run import Result, run_one
from .settings import RunSettings, shows, split, split_all


@shows(RunSettings, EXTRACT_OPTIONS, without=DECIDED)
def extract_lora(base: Reference, finetuned: Reference, out: Reference, **options: Any) -> Result:
    """Write the leading part of a fine-tuning as a LoRA adapter for the base.

    This is `truncate` with `--emit adapter`: of the selected matrices, the best approximation of
    W_f - W_b at the rank that is chosen. What the adapter leaves out of the fine-tuning is told for
    each tensor and in all; norms and biases always stay behind, embeddings and heads too unless
    `--modules` asks for them.

    Args:
        options: `rank`, `energy` or `error` (at most one of them; by default the rank is 5 % of
            min(m, n)), filters, and settings of a run.

    Raises:
        UvmergeError: one of its subclasses in `uvmerge.errors`, which says what to do.
    """
    known = {parameter.name: parameter for parameter in EXTRACT_OPTIONS}
    given = {name: options.pop(name) for name in known if name in options}
    _refuse_decided(options)
    chosen, watch = split_all(RunSettings, {**options, "emit": "adapter", "lossy": True})
    rank, energy, error = (known[n].parse(given.pop(n, None)) for n in ("rank", "energy", "error"))
    exclusive(rank=rank, energy=energy, error=error)
    if error is not None:
        energy = 1 - error**2
    step = RecipeStep.parse("truncate", {**given, "rank": rank, "energy": energy})
    return run_one(Recipe((step,)), {BASE: base, FINETUNED: finetuned}, out, chosen, watch)


def _refuse_decided(options: Mapping[str, Any]) -> None:
    if name := next((name for name in DECIDED if name in options), None):
        raise UsageError(name, "is not an option of extract_lora", "Use truncate for it.")


@shows(RunSettings, MERGE_OPTIONS, without=EMITTED)
def merge_lora(base: Reference, *adapters_and_out: Reference, **options: Any) -> Result:
    """Write a base with one or several adapters merged into it as a whole model.

    The bits are those of PEFT's own merge; several adapters are merged one after the other, which adds
    their changes up, each times its scale.

    Args:
        base: the model that the adapters are for.
        adapters_and_out: the adapters, and then the folder of the output.
        options: `scale`, for all adapters or one for each; and settings of a run.

    Raises:
        UvmergeError: one of its subclasses in `uvmerge.errors`, which says what to do.
    """
    (parameter,) = MERGE_OPTIONS
    scales = parameter.parse(options.pop("scale", None)) or (1.0,)
    if name := next((name for name in EMITTED if name in options), None):
        raise UsageError(name, "is not an option of merge_lora", "It writes a whole model.")
    chosen, watch = split(RunSettings, options)
    if options:
        raise UsageError(next(iter(options)), "is not an option of merge_lora")
    if len(adapters_and_out) < 2:
        raise UsageError(
            "merge-lora", "ADAPTER or OUT is missing",
            "Usage: uvmerge merge-lora BASE ADAPTER... OUT",
        )  # fmt: skip
    *adapters, out = adapters_and_out
    reference = sum_of([*map(_named, adapters)], _scales(scales, adapters))
    step = RecipeStep.parse("interpolate", {"scale": 1.0})
    return run_one(Recipe((step,)), {BASE: base, FINETUNED: reference}, out, chosen, watch)


def _scales(scales: Sequence[float], adapters: Sequence[Reference]) -> list[float]:
    """One scale for each adapter."""
    if len(scales) == 1:
        return [*scales] * len(adapters)
    if len(scales) != len(adapters):
        what = f"has {counted(len(scales), 'number')} for {counted(len(adapters), 'adapter')}"
        raise UsageError("--scale", what, "Give one for all, or one for each.")
    return list(scales)


def _named(adapter: Reference) -> str:
    """An adapter as a reference; a folder that holds none is refused."""
    folder = Path(adapter).expanduser()
    if folder.is_dir() and not is_adapter(folder):
        do = "Name a folder with adapter_config.json and adapter_model.safetensors, and no model."
        raise InputRefused(brief(adapter), "is no adapter", do)
    return str(adapter)
