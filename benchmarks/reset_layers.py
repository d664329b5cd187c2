"""Wall time of `uvmerge reset-layers --frac 0.25` against `cp -r` of the fine-tuned folder and `sync`.

    python benchmarks/reset_layers.py FOLDER [--rounds 7]

Both are whole processes, run in turn (A B A B …) on the same checkpoint of about 1 GB; the result is
the ratio of each pair and the median. Writes benchmarks/results/reset_layers.json.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from pathlib import Path

from measure import about, median_ratio, process, settle, write_result
from synthetic import parser, write_pair


def timed(command: list[str | Path]) -> float:
    """Seconds that a command takes, after the disk is quiet."""
    settle()
    return process(command).wall_s


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=7)
    settings = options.parse_args()
    pair = settings.folder / "pair"
    if not pair.exists():
        write_pair(pair, settings.layers, settings.hidden, settings.mlp)
    base, finetuned = pair / "base", pair / "finetuned"
    out, copy = settings.folder / "out", settings.folder / "copy"
    uvmerge = [sys.executable, "-m", "uvmerge", "reset-layers", "--frac", "0.25", "-q"]
    ours, theirs = [], []
    for round_number in range(settings.rounds + 1):  # the first round warms the page cache
        a = timed([*uvmerge, base, finetuned, out])
        shutil.rmtree(out)
        b = timed(["sh", "-c", 'cp -r "$0" "$1" && sync', finetuned, copy])
        shutil.rmtree(copy)
        if round_number:
            ours.append(a)
            theirs.append(b)
            print(f"uvmerge {a:.2f} s, cp + sync {b:.2f} s, ratio {a / b:.2f}", flush=True)
    result = {
        **about("torch", "uvmerge"),
        "bytes": (finetuned / "model.safetensors").stat().st_size,
        "rounds": settings.rounds,
        "uvmerge_s": round(statistics.median(ours), 3),
        "cp_sync_s": round(statistics.median(theirs), 3),
        "ratio_median": median_ratio(ours, theirs),
        "uvmerge_over_1.5_cp_plus_0.5_s": sum(
            a > 1.5 * b + 0.5 for a, b in zip(ours, theirs, strict=True)
        ),
    }
    write_result("reset_layers", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
