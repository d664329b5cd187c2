"""The experts of a mixture of experts: which tensors hold several, and in which layout.

The experts of one layer are stored apart (`experts.3.up_proj.weight`), fused along a first axis of
their own, or flattened into the rows of one matrix. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .folder import Tensor
from .stacks import Position, template

_COUNT_KEY = re.compile(
    r"(num|n|moe_num)_?(local_|routed_|attention_)?experts"
    r"|n_routed_experts|moe_num_experts|num_experts"
)
_ROUTER = re.compile(r"(router(\.\w+)?|gate|wg|gate_network)\.weight$")
_ROLES = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "v1": "up",
          "down_proj": "down", "w2": "down"}  # fmt: skip
_BOTH = re.compile(r"gate_up|input_linear|gate_and_up|w13|wi_fused")
_DOWN = re.compile(r"down|output_linear|w2($|[._])|wo($|\.)|fc2|o_proj|out_proj")


@dataclass(frozen=True, slots=True)
class Fused:
    """The layout of several experts in one tensor.

    Attributes:
        count: number of experts in the tensor.
        out, inner: shape (out, in) of one expert's whole matrix, gate and up together.
        parts: (start, stop, step) on the out axis of each matrix of an expert; None for all of it.
        transposed: whether the tensor stores (in, out).
    """

    count: int
    out: int
    inner: int
    parts: tuple[tuple[int, int, int] | None, ...]
    transposed: bool

    def shape_of(self, part: tuple[int, int, int] | None) -> tuple[int, int]:
        """Shape (out, in) of the matrix in `part`."""
        return (self.out if part is None else self.out // len(self.parts), self.inner)


class Experts:
    """The experts of a checkpoint."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        position: Callable[[str], Position | None],
        config: Mapping[str, Any],
    ) -> None:
        self._tensors, self._position = tensors, position
        self._counts = frozenset(_counts(config))
        self._widths = frozenset(_widths(config))
        self._routed: dict[tuple[str, int], int] | None = None
        self._by_parent: dict[str, list[Tensor]] | None = None

    def fused(self, tensor: Tensor) -> Fused | None:
        """The layout of the experts in `tensor`; None where it does not hold several experts."""
        name, shape = tensor.name, tensor.shape
        if len(shape) not in (2, 3) or name.endswith("bias") or 0 in shape:
            return None
        position = self._position(name)
        if position is None:
            return None
        if len(shape) == 2:
            return self._flattened(tensor, position)
        if 1 in shape[1:] or re.search(r"conv|bias", position.rest):
            return None
        if "experts." not in position.rest and shape[0] not in self._possible_counts(position):
            return None
        transposed = self._stores_in_out(tensor)
        rows, columns = shape[1:]
        out, inner = (columns, rows) if transposed else (rows, columns)
        return Fused(shape[0], out, inner, self._parts(tensor, out), transposed)

    def key(
        self, name: str, expert: int | None, part: tuple[int, int, int] | None
    ) -> tuple[int, int, str] | None:
        """(layer, expert, `gate`, `up` or `down`) of an expert's matrix, alike in every layout."""
        position = self._position(name)
        if position is None or "expert" not in name:
            return None
        segments = name.split(".")
        if expert is not None:
            last = segments[-2] if segments[-1] == "weight" else segments[-1]
            role = _ROLES.get(last, last) if part is None else "gate" if part[0] == 0 else "up"
            return position.layer, expert, role
        match = re.search(r"\.experts\.(\d+)\.(\w+)\.weight$", name)
        if not match:
            return None
        return position.layer, int(match[1]), _ROLES.get(match[2], match[2])

    def routes_in_out(self, router: Tensor) -> bool:
        """Whether a router stores (in, out): model's width by number of experts."""
        rows, columns = router.shape
        return rows in self._widths and columns in self._counts and rows not in self._counts

    def _possible_counts(self, position: Position) -> frozenset[int]:
        """Numbers of experts that the layer's router and the config state."""
        if self._routed is None:
            self._routed = {}
            for name, tensor in self._tensors.items():
                if len(tensor.shape) == 2 and _ROUTER.search(name):
                    at = self._position(name)
                    if at is not None:
                        self._routed[at.stack, at.layer] = min(tensor.shape)
        routed = self._routed.get((position.stack, position.layer))
        return self._counts if routed is None else self._counts | {routed}

    def _flattened(self, tensor: Tensor, position: Position) -> Fused | None:
        """The layout of DBRX, which stores the rows of all E experts one after the other.

        With I the experts' width and H the model's, w1, v1 and w2 have the shape (E I, H).
        """
        if not position.rest.endswith(("experts.mlp.w1", "experts.mlp.v1", "experts.mlp.w2")):
            return None
        count = next(
            (n for n in sorted(self._possible_counts(position)) if tensor.shape[0] % n == 0), None
        )
        if count is None:
            return None
        inner, hidden = tensor.shape[0] // count, tensor.shape[1]
        is_down = position.rest.endswith("w2")
        out, into = (hidden, inner) if is_down else (inner, hidden)
        return Fused(count, out, into, (None,), is_down)

    def _parts(self, tensor: Tensor, out: int) -> tuple[tuple[int, int, int] | None, ...]:
        """The rows of gate and of up where they share a tensor, else (None,)."""
        both = _BOTH.search(tensor.name) or self._is_twice_as_wide(tensor, out)
        if out % 2 or not both or "self_attention" in tensor.name:
            return (None,)
        # gpt-oss, the one layout with a bias, stores gate and up in alternating rows.
        if f"{tensor.name}_bias" in self._tensors:
            return (0, out, 2), (1, out, 2)
        return (0, out // 2, 1), (out // 2, out, 1)

    def _is_twice_as_wide(self, tensor: Tensor, out: int) -> bool:
        """Whether the layer's only other fused tensor, the way down, takes half of `out`."""
        others = self._siblings(tensor)
        if len(others) != 1 or not _DOWN.search(template(others[0].name)):
            return False
        return out // 2 in others[0].shape[1:] and out not in others[0].shape[1:]

    def _stores_in_out(self, tensor: Tensor) -> bool:
        """Whether a fused expert tensor stores (in, out).

        A sibling's axes decide; without a sibling, the width of the model that the config states.
        With I the experts' width and H the model's, (out, in) is gate_up (2I, H) and down (H, I);
        (in, out) is gate_up (H, 2I) and down (I, H).
        """
        is_down = bool(_DOWN.search(template(tensor.name)))
        _, rows, columns = tensor.shape
        for other in self._siblings(tensor):
            if is_down != bool(_DOWN.search(template(other.name))):
                (a, b), (c, d) = (
                    (other.shape[1:], (rows, columns))
                    if is_down
                    else ((rows, columns), other.shape[1:])
                )
                if (a == d) != (b == c):
                    return a == d
        if (rows in self._widths) == (columns in self._widths):
            return False
        return (rows in self._widths) != is_down

    def _siblings(self, tensor: Tensor) -> list[Tensor]:
        """The other tensors of three axes under the parent of `tensor`."""
        if self._by_parent is None:
            self._by_parent = defaultdict(list)
            for other in self._tensors.values():
                if len(other.shape) == 3 and not other.name.endswith("bias"):
                    self._by_parent[_parent(other.name)].append(other)
        return [other for other in self._by_parent[_parent(tensor.name)] if other is not tensor]


def _parent(name: str) -> str:
    """`mlp.experts` of `mlp.experts.gate_up_proj` and of `mlp.experts.gate_up_proj.weight`."""
    return name.removesuffix(".weight").rpartition(".")[0]


def _counts(config: Mapping[str, Any], levels: int = 12) -> list[int]:
    """Every number of experts that a config states, at any depth."""
    return _numbers(config, _COUNT_KEY, levels)


def _widths(config: Mapping[str, Any], levels: int = 12) -> list[int]:
    """Every width of a model that a config states, at any depth."""
    return _numbers(config, re.compile(r"hidden_size|d_model|n_embd|emb_dim|dim"), levels)


def _numbers(config: Mapping[str, Any], key_pattern: re.Pattern[str], levels: int) -> list[int]:
    found: list[int] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and levels:
            found += _numbers(value, key_pattern, levels - 1)
        elif type(value) is int and value > 1 and key_pattern.fullmatch(str(key)):
            found.append(value)
    return found
