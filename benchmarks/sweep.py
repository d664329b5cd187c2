"""A sweep of five settings against one setting, without and with kept factors; and that bytes agree.

    python benchmarks/sweep.py FOLDER [--layers 6] [--rounds 3] [--precision exact,fast]

Whole processes in turn, on the pair of `restore.py`: one `restore --top 0.2`, one `restore --top 0.4`
(the largest setting), the sweep over five settings, the sweep that also keeps its factors, the sweep
again from them. "Compute" is the seconds spent decomposing and recombining, summed over threads. Then
each checkpoint of both sweeps is compared, file by file, with that of the single command.

Writes benchmarks/results/sweep.json.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from measure import about, median_ratio, process, read_through, settle, table, write_result
from synthetic import trained_parser, write_trained_pair

TOPS = ("0.05", "0.1", "0.2", "0.3", "0.4")
UVMERGE = (sys.executable, "-m", "uvmerge")


def phases(output: str) -> dict[str, float]:
    """Seconds by phase of a run, from its `--json`."""
    data = json.loads(output)
    results = data.get("results")
    return next(iter(results.values()))["phases"] if results else data["phases"]


def compared(settings: Any, precision: str, pair: tuple[Path, Path]) -> dict[str, Any]:
    """The figures of one precision."""
    options = ["--precision", precision, "-q", "--json"]
    out, factors = settings.folder / "out", settings.folder / "factors"
    grid = ["sweep", "restore", *pair, out, *options, "--top", ",".join(TOPS)]
    commands = {
        "one at 0.2": ["restore", *pair, out, *options, "--top", "0.2"],
        "one at 0.4": ["restore", *pair, out, *options, "--top", "0.4"],
        "sweep": grid,
        "sweep, keeping factors": [*grid, "--factors", factors],
        "sweep from factors": [*grid, "--factors", factors],
    }
    wall: dict[str, list[float]] = {name: [] for name in commands}
    compute: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(settings.rounds):
        shutil.rmtree(factors, ignore_errors=True)
        for name, command in commands.items():
            settle()
            shutil.rmtree(out, ignore_errors=True)
            run = process([*UVMERGE, *command])
            spent = phases(run.output)
            wall[name].append(run.wall_s)
            compute[name].append(spent["decompose"] + spent["recombine"])
            print(f"{precision}, {name}: {run.wall_s:.2f} s, compute {compute[name][-1]:.2f} s")
    size = sum(path.stat().st_size for path in factors.iterdir())
    same = all(same_bytes(out / f"top-{top}", settings.folder, pair, options, top) for top in TOPS)
    ratios = {
        f"{name} / {other}": {
            "wall": median_ratio(wall[name], wall[other]),
            "compute": median_ratio(compute[name], compute[other]),
        }
        for name, other in [
            ("sweep", "one at 0.2"), ("sweep", "one at 0.4"), ("sweep from factors", "sweep"),
        ]
    }  # fmt: skip
    return {
        "medians": {
            name: {
                "wall_s": round(statistics.median(wall[name]), 2),
                "compute_s": round(statistics.median(compute[name]), 2),
            }
            for name in commands
        },
        "ratios": ratios,
        "factors_bytes": size,
        "byte_identical_to_single_runs": same,
    }


def same_bytes(
    swept: Path, folder: Path, pair: tuple[Path, Path], options: list[str], top: str
) -> bool:
    """Whether a checkpoint of the sweep holds the bytes that the single command writes."""
    single = folder / "single"
    shutil.rmtree(single, ignore_errors=True)
    process([*UVMERGE, "restore", *pair, single, *options, "--top", top])
    names = {path.name for path in single.iterdir()}
    same = names == {path.name for path in swept.iterdir()} and all(
        (single / name).read_bytes() == (swept / name).read_bytes() for name in names
    )
    shutil.rmtree(single)
    return same


def main() -> None:
    options = trained_parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--precision", default="exact,fast")
    settings = options.parse_args()
    pair = settings.folder / "base", settings.folder / "finetuned"
    if not pair[0].exists():
        write_trained_pair(settings.folder, settings.size, settings.layers)
    read_through(*pair)
    found = {p: compared(settings, p, pair) for p in settings.precision.split(",")}
    write_result(
        "sweep", about("uvmerge", "torch") | {"tops": TOPS, "layers": settings.layers} | found
    )
    for precision, figures in found.items():
        rows = [(precision, "wall", "compute")]
        rows += [(name, r["wall"], r["compute"]) for name, r in figures["ratios"].items()]
        print(table(rows), f"\nbyte-identical: {figures['byte_identical_to_single_runs']}")


if __name__ == "__main__":
    main()
