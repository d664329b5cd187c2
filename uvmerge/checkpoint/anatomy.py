"""What each tensor of a checkpoint is: its layer, its module, and the matrices inside it.

Read off names, shapes and the layer count of the config; there is no table of architectures. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .folder import Checkpoint, Tensor
from .header import FLOATS

MODULES = ("attention", "mlp", "router", "norm", "embeddings", "head", "final-norm", "other")

_OTHER_TOWER = re.compile(r"visi|visual|image|audio|speech|multi_modal|mm_projector|connector")
_EMBEDDINGS = re.compile(r"embed|(^|\.)w[tp]e\.")
_HEAD = re.compile(r"head|classifier|score|pooler|(^|\.)cls\.|(^|\.)output\.weight$")
_NORM = re.compile(r"norm|(^|\.)ln_?\w*\.", re.IGNORECASE)
_ROUTER = re.compile(r"router|(^|\.)(gate|shared_expert_gate|gate_network)\.(weight|bias)$")
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_DEPTH_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers")
_EXPERT_ROLES = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up",
                 "down_proj": "down", "w2": "down"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands in the model; operations may ask for it with a keyword `place`.

    Attributes:
        layer: index of its decoder layer, or None outside them.
        depth: number of decoder layers L.
        module: one of `MODULES`.
        is_matrix: whether it is a weight matrix (or a stack of them), not a bias, norm or buffer.
    """

    layer: int | None
    depth: int
    module: str
    is_matrix: bool


@dataclass(frozen=True, slots=True)
class View:
    """One matrix W of shape (out, in) inside a stored tensor, or a whole tensor of any shape.

    Attributes:
        tensor: name of the stored tensor.
        expert: index on the first axis of a fused expert tensor, or None for a plain matrix.
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
    def label(self) -> str:
        """The tensor's name, with expert and rows where it holds several matrices."""
        expert = "" if self.expert is None else f"[{self.expert}]"
        rows = "" if self.part is None else f"[{':'.join(map(str, self.part))}]"
        return f"{self.tensor}{expert}{rows}"


class Anatomy:
    """The layers, modules and matrices of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tensors = checkpoint.tensors
        self.notes: list[str] = []
        self._places: dict[str, Place] = {}
        stack, self.depth = self._decoder_stack(checkpoint.config)
        self._stack_prefix = f"{stack}." if stack else None
        self._transposed = self._stores_in_out()

    def place(self, tensor: Tensor) -> Place:
        """Where `tensor` stands."""
        if tensor.name not in self._places:
            layer = self._layer(tensor.name)
            module = self._module(tensor, layer)
            is_matrix = self._is_matrix(tensor, layer)
            self._places[tensor.name] = Place(layer, self.depth, module, is_matrix)
        return self._places[tensor.name]

    def views(self, tensor: Tensor) -> list[View]:
        """The matrices inside `tensor`, in the order of their rows; any other tensor is one view."""
        if not self.place(tensor).is_matrix:
            return [View(tensor.name, None, None, False, tensor.shape)]
        if len(tensor.shape) == 3:
            return self._expert_views(tensor)
        transposed = self._transposed and self._layer(tensor.name) is not None
        shape = tensor.shape[::-1] if transposed else tensor.shape
        return [View(tensor.name, None, None, transposed, shape)]

    def expert_key(self, view: View) -> tuple[int, int, str] | None:
        """(layer, expert, gate|up|down) of an expert's matrix, however the checkpoint stores it."""
        layer = self._layer(view.tensor)
        if layer is None or "experts" not in view.tensor:
            return None
        segments = view.tensor.split(".")
        if view.expert is not None:
            if view.part is None:
                role = _EXPERT_ROLES.get(segments[-1], segments[-1])
            else:
                role = "gate" if view.part[0] == 0 else "up"
            return layer, view.expert, role
        match = re.search(r"\.experts\.(\d+)\.(\w+)\.weight$", view.tensor)
        if not match:
            return None
        return layer, int(match[1]), _EXPERT_ROLES.get(match[2], match[2])

    def _layer(self, name: str) -> int | None:
        if self._stack_prefix is None or not name.startswith(self._stack_prefix):
            return None
        index, _, rest = name[len(self._stack_prefix) :].partition(".")
        inside = index.isdecimal() and len(index) < 10 and rest and int(index) < self.depth
        return int(index) if inside else None

    def _module(self, tensor: Tensor, layer: int | None) -> str:
        name = tensor.name
        if layer is not None:
            rest = name[len(self._stack_prefix or "") :]
            for module, pattern in (
                ("norm", _NORM),
                ("router", _ROUTER),
                ("attention", _ATTENTION),
            ):
                if pattern.search(rest):
                    return module
            return "mlp"
        if _OTHER_TOWER.search(name) or re.search(r"\.\d+\.", name):
            return "other"
        for module, pattern in (
            ("embeddings", _EMBEDDINGS),
            ("head", _HEAD),
            ("final-norm", _NORM),
        ):
            if pattern.search(name):
                return module
        return "other"

    def _is_matrix(self, tensor: Tensor, layer: int | None) -> bool:
        if tensor.dtype not in FLOATS or 0 in tensor.shape:
            return False
        if len(tensor.shape) == 3:
            return layer is not None and ".experts." in tensor.name and "bias" not in tensor.name
        return len(tensor.shape) == 2 and tensor.name.endswith("weight")

    def _decoder_stack(self, config: Mapping[str, Any]) -> tuple[str | None, int]:
        """The name prefix of the numbered decoder layers, and how many there are."""
        indices: dict[str, set[int]] = defaultdict(set)
        weight: dict[str, int] = defaultdict(int)
        for tensor in self.tensors.values():
            segments = tensor.name.split(".")
            at = next((i for i, s in enumerate(segments) if s.isdecimal()), 0)
            if at and len(segments[at]) < 10:
                prefix = ".".join(segments[:at])
                indices[prefix].add(int(segments[at]))
                weight[prefix] += tensor.size_bytes
        depth = config_depth(config)
        towers = {p for p in indices if _OTHER_TOWER.search(p)}
        stacks = [p for p in indices if p not in towers] or list(indices)
        whole = [
            p for p in stacks
            if depth and len(indices[p]) >= depth and all(i in indices[p] for i in range(depth))
        ]  # fmt: skip
        if not stacks:
            return None, 0
        best = max(whole or stacks, key=lambda p: ("decoder" in p, weight[p]))
        if whole and depth:
            if len(indices[best]) > depth:
                found = len(indices[best])
                self.notes.append(
                    f"the config says {depth} layers, the weights have {found} ({best})"
                )
            return best, depth
        found = max(indices[best]) + 1
        if depth:
            self.notes.append(f"the config says {depth} layers, the weights have {found} ({best})")
        return best, found

    def _stores_in_out(self) -> bool:
        """Whether layer weights are stored (in, out), as GPT-2's Conv1D does.

        A bias has the length of the out axis, so every non-square weight with a bias is evidence.
        """
        votes = []
        for tensor in self.tensors.values():
            if len(tensor.shape) != 2 or self._layer(tensor.name) is None:
                continue
            bias = self.tensors.get(tensor.name.removesuffix("weight") + "bias")
            if bias is not None and len(bias.shape) == 1 and tensor.shape[0] != tensor.shape[1]:
                votes.append(bias.shape[0] == tensor.shape[1])
        return bool(votes) and all(votes)

    def _expert_views(self, tensor: Tensor) -> list[View]:
        """A fused tensor (experts, …, …) as matrices; gate and up are split where they share it."""
        experts, rows, columns = tensor.shape
        in_out = self._experts_in_out(tensor)
        out, inner = (columns, rows) if in_out else (rows, columns)
        parts: list[tuple[int, int, int] | None] = [None]
        if "gate_up" in tensor.name and out % 2 == 0:
            # gpt-oss, the one layout with a bias, stores gate and up in alternating rows.
            interleaved = f"{tensor.name}_bias" in self.tensors
            half = out // 2
            parts = [(0, out, 2), (1, out, 2)] if interleaved else [(0, half, 1), (half, out, 1)]
        return [
            View(tensor.name, expert, part, in_out, (out if part is None else out // 2, inner))
            for expert in range(experts)
            for part in parts
        ]

    def _experts_in_out(self, tensor: Tensor) -> bool:
        """Whether a fused expert tensor stores (in, out): its sibling's axes tell.

        With I the experts' width and H the model's, (out, in) is gate_up (2I, H) and down (H, I);
        (in, out) is gate_up (H, 2I) and down (I, H).
        """
        gate_up = self.tensors.get(tensor.name.replace("down_proj", "gate_up_proj"))
        down = self.tensors.get(tensor.name.replace("gate_up_proj", "down_proj"))
        if gate_up is None or down is None or len(gate_up.shape) != 3 or len(down.shape) != 3:
            return False
        (_, a, b), (_, c, d) = gate_up.shape, down.shape
        return (b, a) == (2 * c, d)


def config_depth(config: Mapping[str, Any]) -> int | None:
    """Number of decoder layers that the config states; the text part of a multimodal one first."""
    nested = [v for k, v in config.items() if isinstance(v, dict) and not _OTHER_TOWER.search(k)]
    nested.sort(key=lambda part: part is not config.get("text_config"))
    for part in (
        (*nested[:1], config, *nested[1:]) if "text_config" in config else (config, *nested)
    ):
        for key in _DEPTH_KEYS:
            if type(part.get(key)) is int and part[key] > 0:
                return int(part[key])
    return None
