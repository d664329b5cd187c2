"""Decompositions on a GPU: what uvmerge does today, and what it might do there.

    python benchmarks/gpu.py FOLDER [--device cuda] [--shapes 2048x2048,4096x4096,4096x14336] [--rounds 3]

On one device, in turn: `torch.linalg.svd` of both matrices (the published procedure), `exact` and `fast`
as uvmerge computes them, and the candidates of `eigenspaces.py` with the longer side and recombination
in float64. Each with seconds and the error of the edit relative to the edit, from float64 SVDs. Then
batches of equal small shapes against one call for each, and the whole command on two layers with the
shapes of Qwen2.5-7B, with the seconds of all 28 layers computed from it.

Writes benchmarks/results/gpu.json with date and card. With `--device cpu` and small shapes the same
code runs anywhere.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import floor
import published
import torch
from eigenspaces import METHODS
from floor import TOP, Pair, seconds
from measure import about, process, read_through, table, write_result
from synthetic import SIZES, matrix_pair, write_trained_pair
from torch import Tensor

from uvmerge.spectral.precision import POLICIES, single_threaded

SHAPES = "2048x2048,4096x4096,4096x14336"
BATCHES = "64x256,64x512"  # matrices of a batch x side
LAYERS, ALL_LAYERS = 2, 28


def candidate(pair: Pair, method: str) -> Tensor:
    """W' (m, n) in float64 of one pair, with the leading directions from a method."""
    base, finetuned = (W.double() if len(W) >= W.shape[1] else W.mT.double() for W in pair)
    k = published.leading(tuple(base.shape), TOP)
    factors = []
    for W in (base, finetuned):
        V = METHODS[method](W.mT @ W, k)
        theta, Y = torch.linalg.eigh((W @ V).mT @ (W @ V))
        V, S = V @ Y.flip(1), theta.flip(0).sqrt()
        factors.append((W @ V / S, S, V))
    (U_b, _, V_b), (U_f, S, V_f) = factors
    edited = finetuned + (U_b * S) @ V_b.mT - (U_f * S) @ V_f.mT
    return edited if len(pair[0]) >= pair[0].shape[1] else edited.mT


def contenders(pair: Pair) -> dict[str, Callable[[], Tensor]]:
    """By name, what computes W' of a pair."""
    single = tuple(W.float() for W in pair)
    found: dict[str, Callable[[], Tensor]] = {
        "published": lambda: published.restored(single[0], single[1], TOP),
        **{policy: (lambda p=policy: floor.edit(pair, p)) for policy in POLICIES},
        **{method: (lambda m=method: candidate(pair, m)) for method in METHODS},
    }
    return found


def measured(shape: tuple[int, int], rounds: int, device: str) -> dict[str, Any]:
    """Seconds and errors of every contender on one shape; the median of the rounds."""
    base, finetuned = matrix_pair(shape, 0, device=device)
    pair = base.bfloat16(), finetuned.bfloat16()
    calls = contenders(pair)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    failed: dict[str, str] = {}
    with single_threaded():
        for _ in range(rounds):
            for name, call in calls.items():
                try:
                    taken[name].append(seconds(call, device).wall)
                except (ArithmeticError, RuntimeError) as error:
                    failed[name] = str(error).splitlines()[0]
        return {
            "shape": list(shape),
            **{
                name: {
                    "seconds": float(f"{statistics.median(taken[name]):.4g}"),
                    "error": float(f"{floor.error(pair, call().double()):.3g}"),
                }
                for name, call in calls.items()
                if name not in failed
            },
            **({"failed": failed} if failed else {}),
        }


def batched(count: int, side: int, device: str) -> dict[str, Any]:
    """Seconds of `eigh` of a batch of Gram matrices, and of one call for each."""
    generator = torch.Generator(device).manual_seed(0)
    W = torch.randn(count, side, side, generator=generator, device=device, dtype=torch.float64)
    G = W.mT @ W
    return {
        "count": count,
        "side": side,
        "batch_s": seconds(lambda: torch.linalg.eigh(G), device).wall,
        "one_by_one_s": seconds(lambda: [torch.linalg.eigh(one) for one in G], device).wall,
    }


def whole_command(folder: Path, size: str, device: str) -> dict[str, Any]:
    """Seconds of `uvmerge restore` on `LAYERS` layers, and of all layers computed from it."""
    pair = write_trained_pair(folder, size, LAYERS)
    read_through(*pair)
    found: dict[str, Any] = {"size": size, "layers": LAYERS}
    for policy in POLICIES:
        out = folder / "out"
        run = process([
            sys.executable, "-m", "uvmerge", "restore", "--top", str(TOP), "--device", device,
            "--precision", policy, "-q", *pair, out,
        ])  # fmt: skip
        shutil.rmtree(out)
        found[policy] = {
            "wall_s": round(run.wall_s, 2),
            "all_layers_s": round(run.wall_s * ALL_LAYERS / LAYERS, 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the checkpoints are made")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", default=SHAPES, help="comma-separated, out x in")
    parser.add_argument("--batches", default=BATCHES, help="comma-separated, count x side")
    parser.add_argument("--size", default="7b", choices=sorted(SIZES), help="of the whole command")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    def pairs(text: str) -> list[tuple[int, int]]:
        return [(int(a), int(b)) for a, b in (one.split("x") for one in text.split(","))]

    on_cpu = options.device == "cpu"
    result: dict[str, Any] = {
        **about("torch", "uvmerge"),
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(),
        "rounds": options.rounds,
        "top": TOP,
    }

    def keep(part: str, figures: Any) -> None:  # a later part may fail
        result[part] = figures
        write_result("gpu-on-cpu" if on_cpu else "gpu", result)

    shapes = []
    for shape in pairs(options.shapes):
        shapes.append(measured(shape, options.rounds, options.device))
        print(shapes[-1], flush=True)
        keep("shapes", shapes)
    keep(
        "batches", [batched(count, side, options.device) for count, side in pairs(options.batches)]
    )
    keep("whole_command", whole_command(options.folder, options.size, options.device))
    names = [name for name in shapes[0] if name not in ("shape", "failed")]
    rows = [
        ["x".join(map(str, found["shape"]))]
        + [
            f"{found[n]['seconds']:.3f} ({found[n]['error']:.0e})" if n in found else ""
            for n in names
        ]
        for found in shapes
    ]
    print(table([["shape", *names], *rows]))


if __name__ == "__main__":
    main()
