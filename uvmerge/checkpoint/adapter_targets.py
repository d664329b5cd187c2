"""Which tensors of a base an adapter changes. Names and shapes decide; no weight is read.

Names are compared as they are stored. A name may differ in the words before its last two as long as
its numbers are the same and one tensor alone fits (`mlp.gate.weight`, `block_sparse_moe.gate.weight`).
A head that the base ties to its embeddings is the embeddings; a parameter that holds all experts of a
layer may be stored expert by expert.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..errors import InputRefused
from ..text import brief
from .adapter import Adapter, Change, refuse_missing
from .adapter_config import MERGE_FIRST
from .anatomy import Anatomy, anatomy_of
from .folder import Checkpoint, Tensor
from .header import FLOATS, Entry
from .ties import is_tied, token_embeddings

_NUMBERS = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a module as PEFT sees it, and where the base stores it.

    Attributes:
        name: of the parameter in the module, like `weight`.
        shape: of the parameter.
        tensors: names in the base; several are its experts, one after the other, and of each expert
            its gate before its up.
        per_expert: tensors that make one expert; 0 where the base stores the parameter as it is.
    """

    name: str
    shape: tuple[int, ...]
    tensors: tuple[str, ...]
    per_expert: int = 0


@dataclass(frozen=True)
class Merge:
    """A change, with the parameters of the base that it changes.

    Attributes:
        change: what the adapter does.
        parameters: in the order in which PEFT would wrap them, the innermost first.
        transposed: whether the parameters are stored (in, out).
    """

    change: Change
    parameters: tuple[Parameter, ...]
    transposed: bool = False

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of every tensor of the base that is changed."""
        return tuple(name for parameter in self.parameters for name in parameter.tensors)


def merges_of(adapter: Adapter, base: Checkpoint) -> list[Merge]:
    """What an adapter does to the tensors of a base.

    Raises:
        InputRefused: a module is not there, has another shape, or is quantised.
    """
    targets = _Targets(adapter, base)
    found = [(change, targets.merge(change)) for change in adapter.changes]
    missing = [change.module for change, merge in found if merge is None]
    refuse_missing(adapter.label, base.label, missing, adapter.base)
    merges = [merge for _, merge in found if merge is not None]
    for merge in merges:
        packed = [n for n in merge.tensors if base.tensors[n].dtype not in FLOATS]
        if packed:
            what = f"changes {brief(packed[0])}, which {base.label} stores quantised"
            raise InputRefused(adapter.label, what, "Name the base in full precision.")
    # PEFT merges in the order of the model's modules, where embeddings come before the head.
    return sorted(merges, key=lambda merge: merge.change.kind == "linear")


class _Targets:
    """Finds in one base what one adapter changes."""

    def __init__(self, adapter: Adapter, base: Checkpoint) -> None:
        self.adapter, self.base = adapter, base
        self.anatomy: Anatomy = anatomy_of(base)

    def merge(self, change: Change) -> Merge | None:
        """The merge of one change; None where the base does not have the module."""
        if change.kind == "parameters":
            return self._parameters(change)
        part = next(iter(change.tensors)) if change.kind == "saved" else "weight"
        tensor = self._tensor(f"{change.module}.{part}")
        if tensor is None and change.kind == "linear" and self.adapter.settings.target_parameters:
            return self._parameters(replace(change, kind="parameters"))
        if tensor is None and (head := self._tied(change)):
            if change.kind != "linear":
                what = f"brings a {change.module} of its own, which {self.base.label} ties to {head.name}"
                raise InputRefused(self.adapter.label, what, MERGE_FIRST)
            tensor = head
        if tensor is None:
            return None
        if change.kind == "saved" and self._is_tied_alone(tensor):
            what = f"replaces {tensor.name} alone, which {self.base.label} ties to its head"
            raise InputRefused(self.adapter.label, what, MERGE_FIRST)
        stored = tensor.shape
        shape = self._shape(change)
        transposed = change.kind == "linear" and self._is_transposed(shape, stored)
        if change.kind == "rows":
            self._check_rows(change, tensor)
        elif shape != (stored[::-1] if transposed else stored):
            self._refuse_shape(change, shape, tensor)
        if change.kind == "saved" and len(change.tensors) > 1:
            return self._saved(change)
        return Merge(change, (Parameter(part, stored, (tensor.name,)),), transposed)

    def _saved(self, change: Change) -> Merge | None:
        """A module that is replaced with several tensors, such as weight and bias."""
        parameters = []
        for part, entry in change.tensors.items():
            tensor = self._tensor(f"{change.module}.{part}")
            if tensor is None:
                return None
            if tensor.shape != entry.shape:
                self._refuse_shape(change, entry.shape, tensor)
            parameters.append(Parameter(part, tensor.shape, (tensor.name,)))
        return Merge(change, tuple(parameters))

    def _shape(self, change: Change) -> tuple[int, ...]:
        """Shape of the weight that a change is for, as torch's module has it."""
        tensors = change.tensors
        if change.kind == "linear":
            return tensors["lora_B.weight"].shape[0], tensors["lora_A.weight"].shape[1]
        if change.kind == "embedding":
            return tensors["lora_embedding_A"].shape[1], tensors["lora_embedding_B"].shape[0]
        return next(iter(tensors.values())).shape

    def _is_transposed(self, shape: tuple[int, ...], stored: tuple[int, ...]) -> bool:
        """Whether a linear map of `shape` (out, in) is stored (in, out), as Conv1D does."""
        if shape == stored[::-1] and shape != stored:
            return True
        return self.adapter.settings.fan_in_fan_out and shape == stored[::-1]

    def _check_rows(self, change: Change, tensor: Tensor) -> None:
        rows, indices = (
            change.tensors["trainable_tokens_delta"],
            token_indices(self.adapter, change),
        )
        fits = len(rows.shape) == len(tensor.shape) == 2 and rows.shape[1] == tensor.shape[1]
        if not fits or len(indices) != rows.shape[0]:
            self._refuse_shape(change, rows.shape, tensor)
        if max(indices, default=0) >= tensor.shape[0]:
            what = (
                f"replaces row {max(indices)} of {tensor.name}, which has {tensor.shape[0]:,} rows"
            )
            raise InputRefused(self.adapter.label, what, MERGE_FIRST)

    def _refuse_shape(self, change: Change, shape: Sequence[int], tensor: Tensor) -> None:
        what = (
            f"{change.module} is for a weight of shape {list(shape)}, {self.base.label} has"
            f" {tensor.name} of {list(tensor.shape)}"
        )
        named = (
            f"It was trained on {brief(self.adapter.base)}: name that." if self.adapter.base else ""
        )
        if change.kind == "saved":
            named = f"Where the vocabulary was resized: {MERGE_FIRST[0].lower()}{MERGE_FIRST[1:]}"
        raise InputRefused(self.adapter.label, what, named)

    def _is_tied_alone(self, tensor: Tensor) -> bool:
        """Whether `tensor` is tied embeddings, and the adapter was trained with the head untied."""
        if self.adapter.config.get("ensure_weight_tying") is True or not is_tied(self.anatomy):
            return False
        return tensor.name in {each.name for each in token_embeddings(self.anatomy)}

    def _tied(self, change: Change) -> Tensor | None:
        """The embeddings that are the head, where `change` is that of a tied head."""
        if not change.module.endswith(("lm_head", "embed_out", "output")) or not is_tied(
            self.anatomy
        ):
            return None
        return next(iter(token_embeddings(self.anatomy)), None)

    def _tensor(self, name: str) -> Tensor | None:
        """The base's tensor for a parameter of the model."""
        if found := self.base.tensors.get(name):
            return found
        alike = self._by_end.get(_end(name), [])
        if len(alike) > 1:
            likeness = {each.name: _likeness(each.name, name) for each in alike}
            most = max(likeness.values())
            alike = [each for each in alike if likeness[each.name] == most]
        return alike[0] if len(alike) == 1 else None

    @cached_property
    def _by_end(self) -> dict[tuple[str, ...], list[Tensor]]:
        found: dict[tuple[str, ...], list[Tensor]] = defaultdict(list)
        for tensor in self.base.tensors.values():
            found[_end(tensor.name)].append(tensor)
        return found

    def _parameters(self, change: Change) -> Merge | None:
        """A change of parameters of one module: those that it targets, and where they are stored."""
        owner, pairs = change.module, list(_pairs(change))
        names = [
            target.rpartition(".")[2]
            for target in self.adapter.settings.target_parameters
            if f".{owner}".endswith(f".{target.rpartition('.')[0]}") or "." not in target
        ]
        there = [found for name in dict.fromkeys(names) if (found := self._parameter(owner, name))]
        if len(there) < len(pairs):
            return None
        chosen, flags = [], set()
        for A, B in pairs:
            fits = [(p, _orientation(p, A, B)) for p in there if p not in chosen]
            fits = [(p, flag) for p, flag in fits if flag is not None]
            if not fits:
                shapes = " and ".join(f"{p.name} {list(p.shape)}" for p in there)
                what = f"{owner} has factors {list(A.shape)}, {list(B.shape)}; {self.base.label} {shapes}"
                raise InputRefused(
                    self.adapter.label, what, "Name the base that it was trained on."
                )
            chosen.append(fits[0][0])
            flags |= {fits[0][1]} - {"either"}
        transposed = "transposed" in flags or (not flags and self._has_biases(chosen[0]))
        return Merge(change, tuple(chosen), transposed)

    def _has_biases(self, parameter: Parameter) -> bool:
        """Whether the experts have biases, as in gpt-oss, the layout that stores square (in, out)."""
        return f"{parameter.tensors[0]}_bias" in self.base.tensors

    def _parameter(self, owner: str, name: str) -> Parameter | None:
        """Where the base stores the parameter `name` of the module `owner`."""
        tensor = self._tensor(f"{owner}.{name}")
        if tensor is not None:
            return Parameter(name, tensor.shape, (tensor.name,))
        numbers = _NUMBERS.findall(owner)
        parts = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",), "up_proj": ("up",)}.get(
            name
        )
        if not numbers or parts is None or not owner.endswith("experts"):
            return None
        apart = self._experts_apart.get(int(numbers[0]), {})
        count = 1 + max((expert for expert, _ in apart), default=-1)
        wanted = [(expert, part) for expert in range(count) for part in parts]
        if not wanted or any(each not in apart for each in wanted):
            return None
        tensors = [apart[each] for each in wanted]
        shapes = {tensor.shape for tensor in tensors}
        if len(shapes) > 1 or len({tensor.dtype for tensor in tensors}) > 1:
            return None
        rows, columns = tensors[0].shape
        shape = (count, len(parts) * rows, columns)
        return Parameter(name, shape, tuple(t.name for t in tensors), len(parts))

    @cached_property
    def _experts_apart(self) -> dict[int, dict[tuple[int, str], Tensor]]:
        """The tensors that hold one matrix of one expert: by layer, then (expert, part)."""
        found: dict[int, dict[tuple[int, str], Tensor]] = defaultdict(dict)
        for tensor in self.base.tensors.values():
            key = self.anatomy.experts.key(tensor.name, None, None)
            if key is not None and len(tensor.shape) == 2:
                layer, expert, part = key
                found[layer][expert, part] = tensor
        return found


def token_indices(adapter: Adapter, change: Change) -> tuple[int, ...]:
    """The rows that a change replaces."""
    table = adapter.settings.token_indices
    named = (
        rows for name, rows in table.items() if name and f".{change.module}".endswith(f".{name}")
    )
    return next(named, table.get("", ()))


def _pairs(change: Change) -> Iterator[tuple[Entry, Entry]]:
    """The factors (A, B) of each parameter of a module, the innermost wrapper's first."""
    firsts = sorted((part for part in change.tensors if part.endswith("lora_A.weight")), key=len)
    for part in reversed(firsts):
        yield change.tensors[part], change.tensors[part.replace("lora_A", "lora_B")]


def _orientation(parameter: Parameter, A: Entry, B: Entry) -> str | None:
    """How a parameter of PEFT's factors is stored: `plain` (…, out, in), `transposed`, or `either`.

    None where the factors do not fit it.
    """
    *experts, rows, columns = (1, *parameter.shape)[-3:]
    if len(parameter.shape) not in (2, 3) or A.shape[0] % experts[0]:
        return None
    plain = (B.shape[0], A.shape[1]) == (rows, columns)
    transposed = len(parameter.shape) == 3 and (A.shape[1], B.shape[0]) == (rows, columns)
    if plain and transposed:
        return "either"
    return "plain" if plain else "transposed" if transposed else None


def _end(name: str) -> tuple[str, ...]:
    """The numbers in a name, and its last two words."""
    return (*_NUMBERS.findall(name), *name.split(".")[-2:])


def _likeness(one: str, other: str) -> tuple[int, int]:
    """How many words two names share at their ends, and how many they share at all."""
    ours, theirs = one.split("."), other.split(".")
    apart = (n for n, (a, b) in enumerate(zip(reversed(ours), reversed(theirs))) if a != b)
    return next(apart, min(len(ours), len(theirs))), len(set(ours) & set(theirs))


def refuse_no_sum(
    adapter: Adapter, merges: list[Merge], taken: Collection[str], scale: float
) -> None:
    """Refuse an adapter that replaces tensors, or normalises them, where changes are to be added.

    Args:
        merges: what the adapter does.
        taken: names of the tensors that the adapters before it change.
    """
    for merge in merges:
        kind = {"saved": "replaces", "rows": "replaces rows of"}.get(merge.change.kind)
        shared = next((name for name in merge.tensors if name in taken), None)
        if kind and scale != 1:
            what = f"{kind} {merge.tensors[0]}, which no scale but 1 can do"
            raise InputRefused(adapter.label, what, "Leave its scale out.")
        if shared is None:
            continue
        if kind:
            what = f"{kind} {shared}, which another adapter changes"
            raise InputRefused(adapter.label, what, "Merge one of them alone.")
        if adapter.settings.use_dora:
            what = f"is a DoRA adapter, whose change of {shared} depends on the adapters before it"
            raise InputRefused(adapter.label, what, MERGE_FIRST)
