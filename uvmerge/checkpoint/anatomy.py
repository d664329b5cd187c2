"""What each tensor of a checkpoint is: its stack and layer, its module, and the matrices inside it.

Read off names, shapes, neighbours and the config; there is no table of architectures. Names that differ
in numbers alone are decided once. Pure.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from .experts import Experts
from .folder import Checkpoint, Tensor
from .header import FLOATS
from .modules import MODULES, inside_module, outside_module
from .stacks import Position, Stack, Stacks, template

__all__ = ["MODULES", "Anatomy", "Place", "View", "anatomy_of"]

# Tensors of two axes in a layer that are no weights of linear maps, by their innermost words.
_NO_MATRIX = re.compile(
    r"(^|[._])(bias|A_log|D|dt_bias|state|scale_shift_table|rotary\w*|inv_freq)$"
    r"|relative_attention_bias|rel_pos|relative_position|position_embed|pos_embed|positional|embed_positions"
    r"|lora_[AB]|lora_embedding|conv1d|dwconv|_embedding\.|embeddings?\.weight$|embed\w*\.weight$"
)
_VOCABULARY = ("vocab_size", "n_vocab", "n_words", "text_vocab_size")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands in the model; operations may ask for it with a keyword `place`.

    Attributes:
        layer: index of its layer in its stack, or None outside of every stack.
        depth: number of layers L of its stack; outside, of the heaviest one.
        module: one of `MODULES`.
        is_matrix: whether it is a weight matrix (or a stack of them), not a bias, norm or buffer.
        stack: name of its stack, like `model.layers`.
        kind: what that stack works on: `text`, `vision`, …
        is_main: whether operations work on that stack unless told otherwise.
    """

    layer: int | None
    depth: int
    module: str
    is_matrix: bool
    stack: str | None = None
    kind: str = ""
    is_main: bool = True

    @property
    def outside(self) -> Place:
        """The same for an operation that does not work on its stack."""
        return replace(self, layer=None, module="other")


@dataclass(frozen=True, slots=True)
class View:
    """One matrix W of shape (out, in) inside a stored tensor, or a whole tensor of any shape.

    Attributes:
        tensor: name of the stored tensor.
        expert: index of an expert among those that share the tensor, or None for a plain matrix.
        part: (start, stop, step) on the out axis, where gate and up share a tensor.
        transposed: whether the tensor stores (in, out), as Conv1D does.
        shape: (out, in), or the tensor's own where it is not a matrix.
    """

    tensor: str
    expert: int | None
    part: tuple[int, int, int] | None
    transposed: bool
    shape: tuple[int, ...]

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of the expert that it belongs to as it is stored, gate and up together."""
        out, inner = self.shape
        out *= 1 if self.part is None else 2
        return (inner, out) if self.transposed else (out, inner)

    def experts_in(self, shape: tuple[int, ...]) -> int:
        """How many experts share its tensor, whose shape is given."""
        return math.prod(shape) // math.prod(self.stored)

    @property
    def label(self) -> str:
        """The tensor's name, with expert and rows where it holds several matrices."""
        expert = "" if self.expert is None else f"[{self.expert}]"
        rows = "" if self.part is None else f"[{':'.join(map(str, self.part))}]"
        return f"{self.tensor}{expert}{rows}"


class Anatomy:
    """The stacks, modules and matrices of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tensors, self.config = checkpoint.tensors, checkpoint.config
        sizes = {tensor.name: tensor.size_bytes for tensor in self.tensors.values()}
        self.stacks = Stacks(sizes, self.config)
        self.notes = list(self.stacks.notes)
        self._places: dict[str, Place] = {}
        self._standings: dict[tuple[object, ...], Place] = {}
        self._decided: dict[tuple[object, ...], tuple[str, bool]] = {}
        self.experts = Experts(self.tensors, self._position, self.config)

    @cached_property
    def depth(self) -> int:
        """Layers of the heaviest stack that operations work on by default."""
        names = self.stacks.default()
        return self.stacks.by_name[names[0]].depth if names else 0

    @property
    def main(self) -> tuple[Stack, ...]:
        """The stacks that operations work on by default, heaviest first."""
        return tuple(self.stacks.by_name[name] for name in self.stacks.default())

    @cached_property
    def _main(self) -> frozenset[str]:
        return frozenset(self.stacks.default())

    def place(self, tensor: Tensor) -> Place:
        """Where `tensor` stands."""
        found = self._places.get(tensor.name)
        if found is None:
            position = self._position(tensor.name)
            module, is_matrix = self._decide(tensor, position)
            found = self._places[tensor.name] = self._standing(position, module, is_matrix)
        return found

    def _standing(self, position: Position | None, module: str, is_matrix: bool) -> Place:
        """The place of these attributes, one object for all tensors alike."""
        at = None if position is None else (position.stack, position.layer)
        key = (at, module, is_matrix)
        if key not in self._standings:
            if position is None:
                place = Place(None, self.depth, module, is_matrix)
            else:
                stack = self.stacks.by_name[position.stack]
                place = Place(
                    position.layer, stack.depth, module, is_matrix, stack.name, stack.kind,
                    stack.name in self._main,
                )  # fmt: skip
            self._standings[key] = place
        return self._standings[key]

    def views(self, tensor: Tensor) -> list[View]:
        """The matrices inside `tensor`, in the order of their rows; any other tensor is one view."""
        if not self.place(tensor).is_matrix:
            return [View(tensor.name, None, None, False, tensor.shape)]
        fused = self.experts.fused(tensor)
        if fused is not None:
            return [
                View(tensor.name, expert, part, fused.transposed, fused.shape_of(part))
                for expert in range(fused.count)
                for part in fused.parts
            ]
        transposed = self._stores_in_out and self._position(tensor.name) is not None
        shape = tensor.shape[::-1] if transposed else tensor.shape
        return [View(tensor.name, None, None, transposed, shape)]

    def expert_key(self, view: View) -> tuple[int, int, str] | None:
        """(layer, expert, gate|up|down) of an expert's matrix, however the checkpoint stores it."""
        return self.experts.key(view.tensor, view.expert, view.part)

    def left_alone(self) -> list[Tensor]:
        """Floating tensors of two or more axes inside of layers that are neither matrices nor norms: what
        operations on matrices leave as it is."""
        return [
            tensor
            for tensor in self.tensors.values()
            if len(tensor.shape) > 1 and tensor.dtype in FLOATS and 0 not in tensor.shape
            and (place := self.place(tensor)).layer is not None
            and not place.is_matrix and place.module != "norm"
        ]  # fmt: skip

    def _position(self, name: str) -> Position | None:
        return self.stacks.position(name)

    def _decide(self, tensor: Tensor, position: Position | None) -> tuple[str, bool]:
        """Module, and whether it is a matrix; once for all tensors alike but for numbers."""
        kind = "" if position is None else position.stack
        rest = template(tensor.name) if position is None else position.rest
        key: tuple[object, ...] = (kind, rest, tensor.shape, tensor.dtype in FLOATS)
        if position is not None and position.layer and len(tensor.shape) == 3:
            key = (*key, position.layer)  # experts in some layers, convolutions in others
        if key not in self._decided:
            is_matrix = self._is_matrix(tensor, position)
            self._decided[key] = self._module(tensor, position, rest), is_matrix
        return self._decided[key]

    def _module(self, tensor: Tensor, position: Position | None, rest: str) -> str:
        if position is None:
            return outside_module(tensor.name, tensor.shape, self._vocabulary)
        neighbours = self._neighbours[position.stack, position.layer]
        return inside_module(rest, len(tensor.shape), neighbours)

    def _is_matrix(self, tensor: Tensor, position: Position | None) -> bool:
        if tensor.dtype not in FLOATS or 0 in tensor.shape:
            return False
        if self.experts.fused(tensor) is not None:
            return True
        if len(tensor.shape) != 2 or not tensor.name.endswith("weight"):
            return False
        if position is None or not _NO_MATRIX.search(position.rest):
            return True
        bias = self.tensors.get(tensor.name.removesuffix("weight") + "bias")
        return (
            bias is not None and bias.shape == tensor.shape[:1]
        )  # a linear map, whatever its name

    @cached_property
    def _neighbours(self) -> Mapping[tuple[str, int], frozenset[str]]:
        """Per layer the names in it, without their numbers."""
        found: dict[tuple[str, int], set[str]] = defaultdict(set)
        for name in self.tensors:
            if (position := self._position(name)) is not None:
                found[position.stack, position.layer].add(position.rest)
        kept: dict[frozenset[str], frozenset[str]] = {}
        frozen = ((at, frozenset(names)) for at, names in found.items())
        return {at: kept.setdefault(names, names) for at, names in frozen}

    @cached_property
    def _vocabulary(self) -> frozenset[int]:
        """Sizes of vocabularies that the config states, at any depth."""
        return frozenset(_sizes(self.config))

    @cached_property
    def _stores_in_out(self) -> bool:
        """Whether layer weights are stored (in, out), as GPT-2's Conv1D does.

        A bias has the length of the out axis, so every non-square weight with a bias is evidence.
        """
        votes = []
        for tensor in self.tensors.values():
            if len(tensor.shape) != 2 or tensor.shape[0] == tensor.shape[1]:
                continue
            bias = self.tensors.get(tensor.name.removesuffix("weight") + "bias")
            if bias is None or len(bias.shape) != 1 or self._position(tensor.name) is None:
                continue
            if bias.shape[0] in tensor.shape:
                votes.append(bias.shape[0] == tensor.shape[1])
        return bool(votes) and all(votes)


_known: WeakKeyDictionary[Checkpoint, Anatomy] = WeakKeyDictionary()


def anatomy_of(checkpoint: Checkpoint) -> Anatomy:
    """The anatomy of a checkpoint, read once while the checkpoint is open."""
    if checkpoint not in _known:
        _known[checkpoint] = Anatomy(checkpoint)
    return _known[checkpoint]


def _sizes(config: Mapping[str, Any], most: int = 12) -> list[int]:
    """Every size of a vocabulary in a config and in those nested in it."""
    found: list[int] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and most:
            found += _sizes(value, most - 1)
        elif type(value) is int and key in _VOCABULARY:
            found.append(value)
    return found
