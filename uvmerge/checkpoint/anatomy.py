"""What each tensor of a checkpoint is: its stack and layer, its module, the matrices inside it.

Names, shapes, neighbouring tensors and the config decide; there is no table of architectures.
Tensors whose names differ only in numbers are classified once. Pure.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakKeyDictionary

from ..errors import listed
from .experts import Experts
from .folder import Checkpoint, Tensor
from .header import FLOATS
from .modules import MODULES, inside_module, outside_module
from .stacks import Position, Stack, Stacks, template
from .tie_table import shared_by_layers

__all__ = ["MODULES", "Anatomy", "Place", "View", "anatomy_of"]

# Words in the names of two-axis tensors in a layer that are not the weights of linear maps.
_NO_MATRIX = re.compile(
    r"(^|[._])(bias|A_log|D|dt_bias|state|scale_shift_table|rotary\w*|inv_freq)$"
    r"|relative_attention_bias|rel_pos|relative_position"
    r"|position_embed|pos_embed|positional|embed_positions"
    r"|lora_[AB]|lora_embedding|conv1d|dwconv|_embedding\.|embeddings?\.weight$|embed\w*\.weight$"
)


_LINEAR = re.compile(r"weight(_\d|_proj)?$|\.hc_(\w+_)?fn$")  # the last word of a map's name


_PARTS = re.compile(r"(\[\d+\])?(\[\d+:\d+:\d+\])?$")  # expert and rows at the end of a label


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands in the model; an operation receives it by declaring a keyword `place`.

    "Outside" means outside of every stack of layers.

    Attributes:
        layer: index of the tensor's layer in its stack, from 0; None outside.
        depth: number of layers L of the tensor's stack; outside, of the heaviest stack.
        module: one of `MODULES`.
        is_matrix: whether the tensor is weight matrices, one or several, not a bias or norm.
        stack: name of the tensor's stack, like `model.layers`; None outside.
        kind: what the stack works on, one of `stacks.KINDS`; empty outside.
        is_main: whether operations work on the stack by default.
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
        """The place as an operation sees it that does not work on the tensor's stack."""
        return replace(self, layer=None, module="other")


@dataclass(frozen=True, slots=True)
class View:
    """One matrix W of shape (m, n) = (out, in) in a stored tensor, or a whole tensor of any shape.

    Attributes:
        tensor: name of the stored tensor.
        expert: index of the matrix's expert, where experts share the tensor; else None.
        part: (start, stop, step) on the out axis, where gate and up share the tensor; else None.
        transposed: whether the tensor stores (in, out), as Conv1D does.
        shape: (out, in), or the tensor's own shape where the tensor is not a matrix.
    """

    tensor: str
    expert: int | None
    part: tuple[int, int, int] | None
    transposed: bool
    shape: tuple[int, ...]

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape in which the tensor stores the matrix's expert, gate and up together."""
        out, inner = self.shape
        out *= 1 if self.part is None else 2
        return (inner, out) if self.transposed else (out, inner)

    def experts_in(self, shape: tuple[int, ...]) -> int:
        """How many experts share the view's tensor, which has `shape`."""
        return math.prod(shape) // math.prod(self.stored)

    @property
    def label(self) -> str:
        """The tensor's name, with expert and rows where the tensor holds several matrices."""
        expert = "" if self.expert is None else f"[{self.expert}]"
        rows = "" if self.part is None else f"[{':'.join(map(str, self.part))}]"
        return f"{self.tensor}{expert}{rows}"


def tensor_of(label: str) -> str:
    """The name of the tensor that a view with this `label` lies in."""
    return _PARTS.sub("", label)


class Anatomy:
    """The stacks, modules and matrices of one checkpoint.

    Attributes:
        tensors: every tensor of the checkpoint, by name.
        config: the checkpoint's parsed config.json.
        stacks: the stacks of layers.
        experts: the layouts of fused experts.
        notes: contradictions between config and weights, as sentences.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tensors, self.config = checkpoint.tensors, checkpoint.config
        sizes = {tensor.name: tensor.size_bytes for tensor in self.tensors.values()}
        self.stacks = Stacks(sizes, self.config)
        self.notes = list(self.stacks.notes)
        if shared := shared_by_layers(self.config, self.tensors):
            self.notes.append(
                f"several layers share {listed(shared, 'tensor', 1)}: an edit of one changes all"
            )
        self._places: dict[str, Place] = {}
        self._shared_places: dict[tuple[object, ...], Place] = {}
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

    @cached_property
    def outside(self) -> tuple[Tensor, ...]:
        """The tensors that stand outside of every stack of layers."""
        return tuple(t for t in self.tensors.values() if self._position(t.name) is None)

    def place(self, tensor: Tensor) -> Place:
        """Where `tensor` stands in the model."""
        found = self._places.get(tensor.name)
        if found is None:
            position = self._position(tensor.name)
            module, is_matrix = self._decide(tensor, position)
            found = self._places[tensor.name] = self._shared_place(position, module, is_matrix)
        return found

    def _shared_place(self, position: Position | None, module: str, is_matrix: bool) -> Place:
        """The place with these attributes: one object for all tensors that share it."""
        at = None if position is None else (position.stack, position.layer)
        key = (at, module, is_matrix)
        if key not in self._shared_places:
            if position is None:
                place = Place(None, self.depth, module, is_matrix)
            else:
                stack = self.stacks.by_name[position.stack]
                place = Place(
                    position.layer,
                    stack.depth,
                    module,
                    is_matrix,
                    stack.name,
                    stack.kind,
                    stack.name in self._main,
                )
            self._shared_places[key] = place
        return self._shared_places[key]

    def views(self, tensor: Tensor) -> list[View]:
        """The matrices inside `tensor`, in the order of their rows; another tensor is one view."""
        place = self.place(tensor)
        if not place.is_matrix:
            return [View(tensor.name, None, None, False, tensor.shape)]
        fused = self.experts.fused(tensor)
        if fused is not None:
            return [
                View(tensor.name, expert, part, fused.transposed, fused.shape_of(part))
                for expert in range(fused.count)
                for part in fused.parts
            ]
        transposed = place.layer is not None and (
            self._stores_in_out or (place.module == "router" and self.experts.routes_in_out(tensor))
        )
        shape = tensor.shape[::-1] if transposed else tensor.shape
        return [View(tensor.name, None, None, transposed, shape)]

    def expert_key(self, view: View) -> tuple[int, int, str] | None:
        """(layer, expert, `gate`, `up` or `down`) of an expert's matrix, alike in every layout."""
        return self.experts.key(view.tensor, view.expert, view.part)

    def non_matrices(self) -> list[Tensor]:
        """Floating-point tensors of two or more axes in layers that are neither matrices nor norms.

        Operations on matrices leave these tensors as they are.
        """
        return [
            tensor
            for tensor in self.tensors.values()
            if len(tensor.shape) > 1
            and tensor.dtype in FLOATS
            and 0 not in tensor.shape
            and (place := self.place(tensor)).layer is not None
            and not place.is_matrix
            and place.module != "norm"
        ]

    def _position(self, name: str) -> Position | None:
        return self.stacks.position(name)

    def _decide(self, tensor: Tensor, position: Position | None) -> tuple[str, bool]:
        """(module, whether it is a matrix), decided once for names that differ only in numbers."""
        kind = "" if position is None else position.stack
        rest = template(tensor.name) if position is None else position.rest
        key: tuple[object, ...] = (kind, rest, tensor.shape, tensor.dtype in FLOATS)
        if position is not None and position.layer and len(tensor.shape) == 3:
            key = (*key, position.layer)  # some layers have experts, others convolutions
        if len(tensor.shape) == 1 and rest.endswith(("*.weight", "*.bias")):
            key = (*key, self._scales(tensor))  # of a norm and a map in one list
        if key not in self._decided:
            is_matrix = self._is_matrix(tensor, position)
            self._decided[key] = self._module(tensor, position, rest), is_matrix
        return self._decided[key]

    def _module(self, tensor: Tensor, position: Position | None, rest: str) -> str:
        if position is None:
            return outside_module(tensor.name)
        if self._scales(tensor):
            return "norm"
        neighbours = self._neighbours[position.stack, position.layer]
        return inside_module(rest, len(tensor.shape), neighbours)

    def _scales(self, tensor: Tensor) -> bool:
        """Whether a tensor is the scale of a norm, or the shift beside one."""
        parent, _, last = tensor.name.rpartition(".")
        if last == "scale":
            return True
        scale = self.tensors.get(f"{parent}.weight") if last == "bias" else tensor
        return (
            last in ("weight", "bias", "alpha", "gamma")
            and scale is not None
            and len(scale.shape) == 1
            and len(tensor.shape) == 1
        )

    def _is_matrix(self, tensor: Tensor, position: Position | None) -> bool:
        if tensor.dtype not in FLOATS or 0 in tensor.shape:
            return False
        if self.experts.fused(tensor) is not None:
            return True
        if len(tensor.shape) != 2 or not _LINEAR.search(tensor.name):
            return False
        bias = self.tensors.get(tensor.name.removesuffix("weight") + "bias")
        if bias is not None and bias.shape == tensor.shape:
            return False  # scales and shifts of each head's elements: a norm (Chameleon's q_norm)
        if position is None or not _NO_MATRIX.search(position.rest):
            return True
        # A bias as long as the out axis marks a linear map, whatever the name says.
        return bias is not None and bias.shape == tensor.shape[:1]

    @cached_property
    def _neighbours(self) -> Mapping[tuple[str, int], frozenset[str]]:
        """For each (stack, layer) the names of its tensors, cut after the layer's number."""
        found: dict[tuple[str, int], set[str]] = defaultdict(set)
        for name in self.tensors:
            if (position := self._position(name)) is not None:
                found[position.stack, position.layer].add(position.rest)
        kept: dict[frozenset[str], frozenset[str]] = {}
        frozen = ((at, frozenset(names)) for at, names in found.items())
        return {at: kept.setdefault(names, names) for at, names in frozen}

    @cached_property
    def _stores_in_out(self) -> bool:
        """Whether layer weights are stored (in, out), as GPT-2's Conv1D does.

        A bias is as long as the out axis, so every non-square weight with a bias is evidence.
        """
        votes = []
        for bias in self.tensors.values():
            if not bias.name.endswith("bias") or len(bias.shape) != 1:
                continue
            tensor = self.tensors.get(f"{bias.name[: -len('bias')]}weight")
            if tensor is None or self._position(tensor.name) is None:
                continue
            rows, columns = tensor.shape if len(tensor.shape) == 2 else (0, 0)
            if rows != columns and bias.shape[0] in tensor.shape:
                votes.append(bias.shape[0] == columns)
        return bool(votes) and all(votes)


_anatomies: WeakKeyDictionary[Checkpoint, Anatomy] = WeakKeyDictionary()


def anatomy_of(checkpoint: Checkpoint) -> Anatomy:
    """The anatomy of a checkpoint, computed once for each open checkpoint."""
    if checkpoint not in _anatomies:
        _anatomies[checkpoint] = Anatomy(checkpoint)
    return _anatomies[checkpoint]
