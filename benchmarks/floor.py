"""Time of one restored pair of matrices against the matrix products that it cannot do without.

    python benchmarks/floor.py [--shapes 896x896,2048x2048] [--rounds 5] [--device cpu|cuda]

For r = min(m, n), l = max(m, n) and k = 20 % of r, the floor is 2 l r² + 6 m n k floating-point
operations at the rate of a 2048³ product on this machine, on one thread: in float64 for `exact`, in
float32 for `fast`. The rate is measured again in every round, right before the edit that it is
compared with; the result is the median of the rounds' ratios. The published procedure
(`published.py`) is timed on one thread and on all. Where an edit takes more than four times its
floor, the operators that took longest go into the result.

Writes benchmarks/results/floor.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import published
import torch
from measure import about, median_ratio, table, write_result
from synthetic import matrix_pair
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from uvmerge.operations.restore import restore
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import POLICIES, single_threaded
from uvmerge.spectral.recombine import rows_of

TOP = 0.2
SIDE = 2048  # of the product whose rate sets the floor
SHAPES = "896x896,128x896,4864x896,896x4864,1024x1024,2048x2048"
RATE_DTYPE = {"exact": torch.float64, "fast": torch.float32}
LEAST_S = 0.2  # of repeated calls, so that a short one is measured too
PROFILE_OVER = 4.0
OPERATORS = 8

Pair = tuple[Tensor, Tensor]


def seconds(call: Callable[[], object], device: str) -> float:
    """Mean seconds of a call, repeated until there is something to measure."""
    calls, start = 0, _now(device)
    while True:
        call()
        calls += 1
        taken = _now(device) - start
        if taken >= LEAST_S:
            return taken / calls


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def rate(dtype: torch.dtype, device: str) -> float:
    """Floating-point operations per second of a square product."""
    A = torch.randn(SIDE, SIDE, dtype=dtype, device=device)
    return 2 * SIDE**3 / seconds(lambda: A @ A, device)


def operations(shape: tuple[int, int]) -> float:
    """The floor's floating-point operations."""
    short, long = sorted(shape)
    return 2 * long * short**2 + 6 * long * short * published.leading(shape, TOP)


def edit(pair: Pair, policy: str) -> None:
    """What uvmerge computes for one pair, to the last row of the result."""
    base, finetuned = (DenseMatrix(name, W, POLICIES[policy]) for name, W in zip("bf", pair))
    result = restore(base, finetuned, top=TOP)
    assert isinstance(result, DenseMatrix)
    for _ in rows_of([result.sum], POLICIES[policy].combine):
        pass


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads inside; as before after."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def slowest_operators(pair: Pair, policy: str, device: str) -> dict[str, float]:
    """Milliseconds of the operators with the largest time of their own in one edit."""
    on_gpu = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with single_threaded(), profile(activities=activities) as profiler:
        edit(pair, policy)
    time_us = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    times = {event.key: getattr(event, time_us) / 1e3 for event in profiler.key_averages()}
    slowest = sorted(times, key=times.__getitem__, reverse=True)[:OPERATORS]
    return {name: _short(times[name]) for name in slowest}


def measured(shape: tuple[int, int], rounds: int, device: str) -> dict[str, Any]:
    """All figures of one shape."""
    base, finetuned = (W.bfloat16() for W in matrix_pair(shape, seed=0, device=device))
    pair, single = (base, finetuned), (base.float(), finetuned.float())
    ours: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    floors: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    counts = (1, torch.get_num_threads()) if device == "cpu" else (1,)
    theirs: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(rounds):
        for policy in POLICIES:
            with single_threaded():
                floors[policy].append(operations(shape) / rate(RATE_DTYPE[policy], device))
                ours[policy].append(seconds(lambda: edit(pair, policy), device))  # noqa: B023
        for count in theirs:
            with threads(count):
                taken = seconds(lambda: published.restored(*single, TOP), device)
            theirs[count].append(taken)
    found: dict[str, Any] = {"shape": list(shape), "k": published.leading(shape, TOP)}
    for policy in POLICIES:
        over = median_ratio(ours[policy], floors[policy])
        found[policy] = {
            "seconds": _short(statistics.median(ours[policy])),
            "floor_s": _short(statistics.median(floors[policy])),
            "over_floor": over,
        }
        if over > PROFILE_OVER:
            found[policy]["slowest_operators_ms"] = slowest_operators(pair, policy, device)
    found["published_s"] = {
        f"{count} thread" + "s" * (count > 1): _short(statistics.median(taken))
        for count, taken in theirs.items()
    }
    return found


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def row(found: dict[str, Any]) -> list[str]:
    """One line of the table."""
    figures = ["x".join(map(str, found["shape"])), str(found["k"])]
    for policy in POLICIES:
        figures += [f"{found[policy]['seconds']:.4f}", f"{found[policy]['over_floor']:.2f}"]
    return [*figures, *(f"{taken:.4f}" for taken in found["published_s"].values())]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default=SHAPES, help="comma-separated, out x in")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    shapes = [(int(m), int(n)) for m, n in (s.split("x") for s in options.shapes.split(","))]
    measured((256, 128), 1, options.device)  # libraries load and warm up
    results = []
    for shape in shapes:
        results.append(measured(shape, options.rounds, options.device))
        print(row(results[-1]), flush=True)
    write_result("floor", {
        **about("torch", "uvmerge"),
        "device": options.device if options.device == "cpu" else torch.cuda.get_device_name(),
        "rounds": options.rounds,
        "top": TOP,
        "shapes": results,
    })  # fmt: skip
    labels = [f"published, {label}" for label in results[0]["published_s"]]
    head = ["shape", "k", "exact s", "/ floor", "fast s", "/ floor", *labels]
    print(table([head, *map(row, results)]))


if __name__ == "__main__":
    main()
