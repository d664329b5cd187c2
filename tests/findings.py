"""Findings of small matrices, made without files: what reports, figures and columns are tested with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from uvmerge.measure.compare import measure
from uvmerge.measure.findings import Compared, Entry, Findings
from uvmerge.measure.measures import Measures
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT

ROLES = {
    "q_proj": ("attention", 40, 40), "k_proj": ("attention", 20, 40), "v_proj": ("attention", 20, 40),
    "o_proj": ("attention", 40, 40), "gate_proj": ("mlp", 96, 40), "up_proj": ("mlp", 96, 40),
    "down_proj": ("mlp", 40, 96),
}  # fmt: skip


def base_matrix(m: int, n: int, generator: torch.Generator) -> torch.Tensor:
    """Random singular vectors, falling values."""
    U, _, Vh = torch.linalg.svd(
        torch.randn(m, n, dtype=torch.float64, generator=generator), full_matrices=False
    )
    values = 3 * torch.arange(1, min(m, n) + 1, dtype=torch.float64) ** -0.5
    return U * values @ Vh


def moved(W: torch.Tensor, scale: float, generator: torch.Generator) -> torch.Tensor:
    """`W` with a change of rank two and a little noise."""
    m, n = W.shape
    low = torch.randn(m, 2, dtype=torch.float64, generator=generator) @ torch.randn(
        2, n, dtype=torch.float64, generator=generator
    )
    noise = torch.randn(m, n, dtype=torch.float64, generator=generator)
    return W + scale * (0.01 * low + 0.003 * noise)


def compare(base: torch.Tensor, others: Sequence[torch.Tensor], k: int) -> list[Measures]:
    matrices = [DenseMatrix("f", other, EXACT) for other in others]
    return measure(DenseMatrix("b", base, EXACT), matrices, k)


def entry(
    found: Measures | None, layer: int | None = 0, role: str = "q_proj", **more: Any
) -> Entry:
    module, m, n = ROLES.get(role, ("other", 40, 40))
    fields = {
        "name": f"model.layers.{layer}.{role}.weight", "layer": layer, "module": module, "role": role,
        "shape": found.change.shape if found else (m, n), "dtype": "F32",
        "state": "measured" if found else "identical", "measures": found,
    } | more  # fmt: skip
    return Entry(**fields)


def model(
    change: Callable[[torch.Tensor, torch.Generator], Sequence[torch.Tensor]],
    layers: int = 2,
    top: float = 0.2,
) -> list[tuple[Entry, ...]]:
    """The entries of each checkpoint that `change` makes of the base's matrices."""
    generator = torch.Generator().manual_seed(0)
    made: list[list[Entry]] = []
    for layer in range(layers):
        for role, (_, m, n) in ROLES.items():
            W = base_matrix(m, n, generator)
            found = compare(W, change(W, generator), round(top * min(m, n)))
            made = made or [[] for _ in found]
            for entries, measures in zip(made, found):
                entries.append(entry(measures, layer, role))
    return [tuple(entries) for entries in made]


def pair(*entries: Entry, label: str = "tuned", **more: Any) -> Findings:
    return Findings("base", None, (Compared(label, None, entries, **more),))
