"""`diff` against `restore` at the same k, and trajectories against one pair.

    python benchmarks/diff.py FOLDER [--layers 6] [--rounds 3] [--precision exact,fast]

Whole processes in turn, on the pair of `restore.py`: `restore --top 0.2`, `diff` of the pair, `diff` of
the base with four and with five checkpoints on the way to the fine-tuned one. "Compute" is what
`restore` spends decomposing and recombining, and `diff` measuring, in seconds summed over threads.

Writes benchmarks/results/diff.json.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from measure import (
    UVMERGE_IMPORTS,
    about,
    imports_peak,
    median_ratio,
    process,
    read_through,
    settle,
    table,
    write_result,
)
from synthetic import trained_parser, write_trained_pair

SCALES = ("0.2", "0.4", "0.6", "0.8")
UVMERGE = (sys.executable, "-m", "uvmerge")


def between(folder: Path) -> list[Path]:
    """Checkpoints on the straight way from the base to the fine-tuned one, and this one itself."""
    for scale in SCALES:
        if not (folder / f"at-{scale}").exists():
            out = folder / f"at-{scale}"
            pair = folder / "base", folder / "finetuned"
            process([*UVMERGE, "interpolate", *pair, out, "--scale", scale, "-q"])
    return [*(folder / f"at-{scale}" for scale in SCALES), folder / "finetuned"]


def compared(settings: Any, precision: str, several: list[Path]) -> dict[str, Any]:
    """The figures of one precision."""
    base, out = settings.folder / "base", settings.folder / "out"
    options = ["--precision", precision, "-q", "--json", "--top", "0.2"]
    commands: dict[str, list[str | Path]] = {
        "restore": ["restore", base, several[-1], out, *options],
        "diff": ["diff", base, several[-1], *options],
        "diff of base and four": ["diff", base, *several[1:], *options],
        "diff of base and five": ["diff", base, *several, *options],
    }
    wall: dict[str, list[float]] = {name: [] for name in commands}
    compute: dict[str, list[float]] = {name: [] for name in commands}
    peak: dict[str, list[int]] = {name: [] for name in commands}
    for _ in range(settings.rounds):
        for name, command in commands.items():
            settle()
            shutil.rmtree(out, ignore_errors=True)
            run = process([*UVMERGE, *command])
            data = json.loads(run.output)
            spent = data["phases"] if name == "restore" else data["seconds"]
            wall[name].append(run.wall_s)
            peak[name].append(run.peak_bytes)
            parts = ("decompose", "recombine") if name == "restore" else ("measure",)
            compute[name].append(sum(spent[part] for part in parts))
            print(f"{precision}, {name}: {run.wall_s:.2f} s, compute {compute[name][-1]:.2f} s")
    return {
        "medians": {
            name: {
                "wall_s": round(statistics.median(wall[name]), 2),
                "compute_s": round(statistics.median(compute[name]), 2),
                "peak_beyond_imports_bytes": round(statistics.median(peak[name]))
                - imports_peak(UVMERGE_IMPORTS),
            }
            for name in commands
        },
        "ratios": {
            f"{name} / {other}": {
                "wall": median_ratio(wall[name], wall[other]),
                "compute": median_ratio(compute[name], compute[other]),
            }
            for name, other in [
                ("diff", "restore"),
                ("diff of base and four", "diff"),
                ("diff of base and five", "diff"),
            ]
        },
    }


def main() -> None:
    options = trained_parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--precision", default="exact,fast")
    settings = options.parse_args()
    if not (settings.folder / "base").exists():
        write_trained_pair(settings.folder, settings.size, settings.layers)
    several = between(settings.folder)
    read_through(settings.folder / "base", *several)
    found = {p: compared(settings, p, several) for p in settings.precision.split(",")}
    write_result(
        "diff", about("uvmerge", "torch") | {"top": 0.2, "layers": settings.layers} | found
    )
    for precision, figures in found.items():
        rows = [(precision, "wall", "compute")]
        rows += [(name, r["wall"], r["compute"]) for name, r in figures["ratios"].items()]
        print(table(rows))


if __name__ == "__main__":
    main()
