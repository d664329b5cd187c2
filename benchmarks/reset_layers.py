"""Wall time of `uvmerge reset-layers --frac 0.25` against `cp -r` of the fine-tuned folder and `sync`.

    python benchmarks/reset_layers.py FOLDER [--rounds 7]

Both are whole processes, run in turn (A B A B …) on the same checkpoint of about 1 GB; the result is
the ratio of each pair and the median. Appends to benchmarks/results/reset_layers.json.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from synthetic import parser, write_pair

RESULTS = Path(__file__).resolve().parent / "results"


def timed(command: list[str] | str) -> float:
    """Seconds that a command takes, after the disk is quiet (freed blocks are discarded late)."""
    os.sync()
    time.sleep(2)
    start = time.perf_counter()
    subprocess.run(command, shell=isinstance(command, str), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


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
        a = timed([*uvmerge, str(base), str(finetuned), str(out)])
        shutil.rmtree(out)
        b = timed(f"cp -r '{finetuned}' '{copy}' && sync")
        shutil.rmtree(copy)
        if round_number:
            ours.append(a)
            theirs.append(b)
            print(f"uvmerge {a:.2f} s, cp + sync {b:.2f} s, ratio {a / b:.2f}", flush=True)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "bytes": (finetuned / "model.safetensors").stat().st_size,
        "rounds": settings.rounds,
        "uvmerge_s": round(statistics.median(ours), 3),
        "cp_sync_s": round(statistics.median(theirs), 3),
        "ratio_median": round(
            statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3
        ),
        "uvmerge_over_1.5_cp_plus_0.5_s": sum(
            a > 1.5 * b + 0.5 for a, b in zip(ours, theirs, strict=True)
        ),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "reset_layers.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
