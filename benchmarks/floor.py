"""Time of one restored pair of matrices against the matrix products that it cannot do without.

    python benchmarks/floor.py [--shapes 896x896,2048x2048] [--deltas 0.01,0.001] [--rounds 5]
        [--device cpu|cuda]

For r = min(m, n), l = max(m, n) and k = 20 % of r, the floor is 2 l r² + 6 m n k floating-point
operations at the rate of a 2048³ product on this machine, on one thread: in float64 for `exact`, in
float32 for `fast`. All are measured in turn, in rounds, as seconds of the processor beside seconds of
the clock; a ratio is the median of the rounds' ratios, of seconds of the processor. The published
procedure (`published.py`) runs on one thread too. The error is that of the edit relative to the edit
from float64 SVDs. Where an edit takes more than four times its floor, the operators that took longest
go into the result.

Writes benchmarks/results/floor.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import published
import torch
from measure import about, median_ratio, table, write_result
from synthetic import matrix_pair
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from uvmerge.operations.restore import restore
from uvmerge.spectral import Log
from uvmerge.spectral.care import care_needed
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import POLICIES, single_threaded
from uvmerge.spectral.recombine import Sum, rows_of

TOP = 0.2
SIDE = 2048  # of the product whose rate sets the floor
SHAPES = "896x896,4864x896,896x4864,2048x2048,4096x4096"
DELTAS = "0.01,0.001"  # ‖W_f − W_b‖ / ‖W_b‖
LARGEST = 2048  # shorter side up to which the second delta and the error are measured
ROUNDED = 0.01  # a smaller delta would drown in the rounding to bfloat16, and is stored in float32
RATE_DTYPE = {"exact": torch.float64, "fast": torch.float32}
LEAST_S = 0.2  # of repeated calls, so that a short one is measured too
PROFILE_OVER = 4.0
OPERATORS = 8

Pair = tuple[Tensor, Tensor]


class Seconds(NamedTuple):
    """Of one call."""

    cpu: float
    wall: float


def seconds(call: Callable[[], object], device: str) -> Seconds:
    """Mean seconds of a call, repeated until there is something to measure."""
    calls, start, cpu = 0, _now(device), time.process_time()
    while True:
        call()
        calls += 1
        wall = _now(device) - start
        if wall >= LEAST_S:
            taken = time.process_time() - cpu if device == "cpu" else wall
            return Seconds(taken / calls, wall / calls)


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def rate(dtype: torch.dtype, device: str) -> float:
    """Floating-point operations per second of a square product."""
    A = torch.randn(SIDE, SIDE, dtype=dtype, device=device)
    return 2 * SIDE**3 / seconds(lambda: A @ A, device).cpu


def operations(shape: tuple[int, int]) -> float:
    """The floor's floating-point operations."""
    short, long = sorted(shape)
    return 2 * long * short**2 + 6 * long * short * published.leading(shape, TOP)


def edit(pair: Pair, policy: str) -> Tensor:
    """What uvmerge computes for one pair, with the care that its size asks for."""
    log = Log(wholly=policy != "fast")

    def computed(policy: str) -> tuple[Sum, Sum]:
        log.begin()
        base, finetuned = (
            DenseMatrix(role, W, POLICIES[policy], log=log, operand=role)
            for role, W in zip(("base", "finetuned"), pair)
        )
        result = restore(base, finetuned, top=TOP)
        if not log.wholly and (care := care_needed(log, result.sum, finetuned.sum)) != "enough":
            log.wholly = True
            if care == "exactly":
                return computed("exact")
            log.begin()
            result = restore(base, finetuned, top=TOP)
        return result.sum, finetuned.sum

    result, _ = computed(policy)
    return torch.cat([panels[0].clone() for panels in rows_of([result], POLICIES[policy].combine)])


def error(pair: Pair, edited: Tensor) -> float:
    """‖W′ − W′₆₄‖ / ‖W′₆₄ − W_f‖, with W′₆₄ from float64 SVDs."""
    base, finetuned = (W.double() for W in pair)
    expected = published.restored(base, finetuned, TOP)
    return float(torch.linalg.norm(edited - expected) / torch.linalg.norm(expected - finetuned))


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


def measured(shape: tuple[int, int], delta: float, rounds: int, device: str) -> dict[str, Any]:
    """All figures of one shape and delta."""
    stored = torch.bfloat16 if delta >= ROUNDED else torch.float32
    base, finetuned = (W.to(stored) for W in matrix_pair(shape, 0, delta, device=device))
    pair, single = (base, finetuned), (base.float(), finetuned.float())
    ours: dict[str, list[Seconds]] = {policy: [] for policy in POLICIES}
    floors: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    theirs: list[Seconds] = []
    with single_threaded():
        for _ in range(rounds):
            for policy in POLICIES:
                floors[policy].append(operations(shape) / rate(RATE_DTYPE[policy], device))
                ours[policy].append(seconds(lambda: edit(pair, policy), device))  # noqa: B023
            theirs.append(seconds(lambda: published.restored(*single, TOP), device))
        found: dict[str, Any] = {
            "shape": list(shape),
            "delta": delta,
            "k": published.leading(shape, TOP),
            "published": _medians(theirs),
        }
        for policy in POLICIES:
            cpu = [taken.cpu for taken in ours[policy]]
            over = median_ratio(cpu, floors[policy])
            found[policy] = {
                **_medians(ours[policy]),
                "floor_s": _short(statistics.median(floors[policy])),
                "over_floor": over,
                "published_over_this": median_ratio([taken.cpu for taken in theirs], cpu),
            }
            if min(shape) <= LARGEST:
                found[policy]["error"] = _short(error(pair, edit(pair, policy)))
            if over > PROFILE_OVER:
                found[policy]["slowest_operators_ms"] = slowest_operators(pair, policy, device)
    return found


def _medians(taken: list[Seconds]) -> dict[str, float]:
    return {
        "cpu_s": _short(statistics.median(one.cpu for one in taken)),
        "wall_s": _short(statistics.median(one.wall for one in taken)),
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


HEAD = ["shape", "delta", "published s", *(
    f"{policy} {what}" for policy in POLICIES for what in ("s", "published /", "/ floor", "error")
)]  # fmt: skip


def row(found: dict[str, Any]) -> list[str]:
    """One line of the table, in seconds of the processor."""
    figures = ["x".join(map(str, found["shape"])), f"{found['delta']:g}"]
    figures.append(f"{found['published']['cpu_s']:.3f}")
    for policy in POLICIES:
        of = found[policy]
        figures += [f"{of['cpu_s']:.3f}", f"{of['published_over_this']:.2f}"]
        figures += [f"{of['over_floor']:.2f}", f"{of['error']:.1e}" if "error" in of else ""]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default=SHAPES, help="comma-separated, out x in")
    parser.add_argument("--deltas", default=DELTAS, help="comma-separated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    shapes = [(int(m), int(n)) for m, n in (s.split("x") for s in options.shapes.split(","))]
    deltas = [float(delta) for delta in options.deltas.split(",")]
    measured((600, 520), deltas[0], 1, options.device)  # libraries load and warm up
    results = []
    for shape in shapes:
        for delta in deltas if min(shape) <= LARGEST else deltas[:1]:
            results.append(measured(shape, delta, options.rounds, options.device))
            print(row(results[-1]), flush=True)
    write_result("floor", {
        **about("torch", "uvmerge"),
        "device": options.device if options.device == "cpu" else torch.cuda.get_device_name(),
        "rounds": options.rounds,
        "top": TOP,
        "shapes": results,
    })  # fmt: skip
    print(table([HEAD, *map(row, results)]))


if __name__ == "__main__":
    main()
