"""What must hold before several models are merged, and in which dtype the output is stored. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from ..checkpoint.composed import ComposedCheckpoint
from ..checkpoint.folder import Checkpoint
from ..checkpoint.header import DTYPES, FLOATS
from ..checkpoint.merged import MergedCheckpoint
from ..checkpoint.roles import BASE, mirrored, name_of, spelled
from ..errors import InputRefused, UsageError
from ..operations.options import did_you_mean
from ..operations.varying import EVERYTHING, Rule, varying
from ..recipe.step import RecipeStep
from ..text import brief


def refuse_twins(checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuse a model that is named twice, since its weight says how much of it goes in."""
    models = {role: each for role, each in checkpoints.items() if name_of(role) != role}
    for (role, one), (other_role, other) in combinations(models.items(), 2):
        if folders_of(one) == folders_of(other):
            raise InputRefused(
                f"{role} and {other_role}",
                f"are one model, named twice ({one.label})",
                "Name each model once, and give it a --weight. --force goes on.",
            )


def folders_of(checkpoint: Checkpoint) -> tuple[object, ...]:
    """The folder of a model, and those of the adapters that are merged into it, each with its scale."""
    if isinstance(checkpoint, MergedCheckpoint):
        adapter = checkpoint.adapter.folder.resolve()
        return (*folders_of(checkpoint.base), adapter, checkpoint.scale)
    if isinstance(checkpoint, ComposedCheckpoint):
        return folders_of(checkpoint.parents[0])
    return (checkpoint.on_disk().resolve(),)


def refuse_other_kinds(checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuse models whose configs name other architectures, although their tensors may have one shape."""
    own = mirrored(checkpoints)
    ours = checkpoints[own].config.get("model_type")
    for role, other in checkpoints.items():
        theirs = other.config.get("model_type")
        if name_of(role) != role and ours and theirs and ours != theirs:
            raise InputRefused(
                f"{spelled(role)} and {spelled(own)}",
                f"are models of two kinds: {brief(str(theirs))} and {brief(str(ours))}",
                "Merge fine-tunes of one model. --force goes on.",
            )


def dtype_of_models(checkpoints: Mapping[str, Checkpoint]) -> str | None:
    """The dtype to store, as `--dtype` names it: that of the first model's values, where most of the
    base's, which the output mirrors, have another one. None keeps the dtype of each tensor."""
    first = next((role for role in checkpoints if name_of(role) != role), None)
    if first is None or mirrored(checkpoints) != BASE:
        return None
    wanted = _usual_dtype(checkpoints[first])
    return None if wanted == _usual_dtype(checkpoints[BASE]) else wanted


def _usual_dtype(checkpoint: Checkpoint) -> str | None:
    counts: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        if tensor.dtype in FLOATS:
            counts[tensor.dtype] += math.prod(tensor.shape)
    words = {short: word for word, short in DTYPES.items()}
    return words.get(counts.most_common(1)[0][0]) if counts else None


def refuse_idle_filters(steps: Sequence[RecipeStep], names: Iterable[str]) -> None:
    """Refuse filters of options that fit no tensor.

    Args:
        names: of the tensors of the output.

    Raises:
        UsageError: names the line of the filter, or its option.
    """
    names = list(names)
    for step in steps:
        for option, values in varying(step.options).items():
            # Those of a file of mergekit are matched in its models too, and checked with its lines.
            for rule in (rule for value in values if not value.everywhere for rule in value.rules):
                if rule.filter != EVERYTHING and not any(map(rule.fits, names)):
                    raise _idle(step, option, rule, names)


def _idle(step: RecipeStep, option: str, rule: Rule, names: Sequence[str]) -> UsageError:
    parts = {part for name in names for part in name.split(".") if not part.isdecimal()}
    key = next(p.key for p in step.operation.parameters if p.name == option)
    place = f"{rule.where}: " if rule.where else ""
    return UsageError(
        f"{place}{step.operation.command}: --{key}",
        f"the filter {brief(rule.filter)!r} fits no tensor",
        f"{did_you_mean(rule.filter, parts)} A filter is a part of a name; `uvmerge show` lists names.",
    )
