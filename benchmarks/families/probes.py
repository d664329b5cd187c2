"""Which parameters of a model a saved tensor is made of.

transformers renames, splits, joins and transposes parameters when it saves. A model is therefore
saved with every parameter full of its own number, and then with every element holding its index
along one axis: what comes out says where each saved element came from.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

Tensors = dict[str, torch.Tensor]


class Probes:
    """Which parameters, and which of their axes, every saved tensor is made of."""

    def __init__(self, model: Any) -> None:
        state = model.state_dict()
        self.names = list(state)
        self._ids = _save_as(model, {n: _full(t, i + 1) for i, (n, t) in enumerate(state.items())})
        ranks = max((t.ndim for t in state.values()), default=0)
        self._axes = [
            _save_as(model, {n: _positions(t, axis) for n, t in state.items()})
            for axis in range(min(ranks, 3))
        ]

    def sources(self, saved: str) -> list[str]:
        """Names of the parameters inside the saved tensor, in their order in it."""
        if saved not in self._ids:
            return []
        values = dict.fromkeys(self._ids[saved].flatten().tolist())
        return [self.names[int(v) - 1] for v in values if v == int(v) and 0 < v <= len(self.names)]

    def saved_name(self, parameter: str) -> str | None:
        """The first saved tensor that holds `parameter`."""
        number = self.names.index(parameter) + 1
        return next((n for n, t in self._ids.items() if bool((t == number).any())), None)

    def varies(self, saved: str, axis: int) -> list[int]:
        """The saved axes along which the parameter's index on its own `axis` changes."""
        if axis >= len(self._axes) or saved not in self._axes[axis]:
            return []
        tensor = self._axes[axis][saved]
        return [a for a in range(tensor.ndim) if bool((tensor.diff(dim=a) != 0).any())]

    def index(self, saved: str, axis: int) -> int | None:
        """The one index on the parameter's `axis` that the saved tensor holds, if it is one."""
        if axis >= len(self._axes) or saved not in self._axes[axis]:
            return None
        values = self._axes[axis][saved].unique()
        return int(values[0]) if len(values) == 1 else None


def saved_tensors(folder: Path) -> Tensors:
    """Every tensor that is saved in `folder`."""
    return {n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()}


def _save_as(model: Any, state: Tensors) -> Tensors:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, state_dict=state)
        return saved_tensors(Path(folder))


def _full(tensor: torch.Tensor, number: int) -> torch.Tensor:
    return torch.full(tensor.shape, float(number), dtype=torch.float32)


def _positions(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    if axis >= tensor.ndim:
        return torch.zeros(tensor.shape)
    shape = [1] * tensor.ndim
    shape[axis] = tensor.shape[axis]
    index = torch.arange(tensor.shape[axis], dtype=torch.float32).reshape(shape)
    return index.expand(tensor.shape).clone()
