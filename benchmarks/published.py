"""Restore as published research scripts do it, re-implemented from the formula alone.

    python benchmarks/published.py BASE FINETUNED OUT [--top 0.2] [--device cpu|cuda]

Both whole models go into memory in float32; each attention and MLP projection of the decoder layers
is decomposed by a full float32 SVD on both sides and rebuilt as a whole with the leading k
directions of the base (arXiv 2508.16546):

    W' = [U_b,k | U_f,rest] diag(S_f) [Vh_b,k ; Vh_f,rest]

The matrices come one after the other, with as many threads as torch takes by default; the whole
model is saved at the end. This is what `restore.py` compares uvmerge with.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

PROJECTION = re.compile(r"layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$")


def leading(shape: tuple[int, ...], top: float) -> int:
    """k of r = min(m, n) directions."""
    return math.floor(top * min(shape) + 0.5)


def restored(base: Tensor, finetuned: Tensor, top: float) -> Tensor:
    """W' (m, n) of one pair of matrices, in their dtype and on their device."""
    k = leading(tuple(finetuned.shape), top)
    U_b, _, Vh_b = torch.linalg.svd(base, full_matrices=False)
    U_f, S_f, Vh_f = torch.linalg.svd(finetuned, full_matrices=False)
    U = torch.cat([U_b[:, :k], U_f[:, k:]], dim=1)  # (m, r)
    Vh = torch.cat([Vh_b[:k], Vh_f[k:]], dim=0)  # (r, n)
    return U @ torch.diag(S_f) @ Vh


def load(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, in float32."""
    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= {name: tensor.float() for name, tensor in load_file(file).items()}
    return state


def is_edited(name: str, base: dict[str, Tensor], finetuned: dict[str, Tensor]) -> bool:
    """Whether `name` is a projection of a decoder layer that both models have."""
    return (
        PROJECTION.search(name) is not None
        and finetuned[name].dim() == 2
        and name in base
        and base[name].shape == finetuned[name].shape
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("base", "finetuned", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--top", type=float, default=0.2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    base, state = load(options.base), load(options.finetuned)
    for name in state:
        if is_edited(name, base, state):
            pair = base[name].to(options.device), state[name].to(options.device)
            state[name] = restored(*pair, options.top).bfloat16().cpu()
    options.out.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.bfloat16().contiguous() for name, tensor in state.items()}
    save_file(whole, options.out / "model.safetensors", metadata={"format": "pt"})
    for file in options.finetuned.glob("*.json"):
        if not file.name.endswith(".index.json"):
            shutil.copy(file, options.out)


if __name__ == "__main__":
    main()
