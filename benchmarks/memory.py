"""Peak resident memory of `uvmerge restore` on one large file, beyond what the imports take.

    python benchmarks/memory.py FOLDER [--all-layers]

Runs the command on a checkpoint pair and on one of twice the depth; `--all-layers` edits every layer
(minutes), otherwise the first two, which have the same matrices. Writes
benchmarks/results/memory.json.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

from synthetic import parser, write_pair

RESULTS = Path(__file__).resolve().parent / "results"
IMPORTS = "import torch, uvmerge.cli, uvmerge.api, uvmerge.engine.compute, numpy"


def peak_bytes(arguments: list[str]) -> int:
    """Peak resident set size of a Python process (ru_maxrss is in KiB on Linux)."""
    child = os.fork()
    if child == 0:  # a fork of its own, because ru_maxrss of children is a maximum over all of them
        subprocess.run([sys.executable, *arguments], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        Path("peak.tmp").write_text(str(peak * 1024))
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the run failed")
    return int(Path("peak.tmp").read_text())


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--all-layers", action="store_true")
    settings = options.parse_args()
    settings.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(settings.folder)
    selection = [] if settings.all_layers else ["--layers", "0-1"]
    imports = peak_bytes(["-c", IMPORTS])
    runs = []
    for layers in (settings.layers, 2 * settings.layers):
        pair = Path(f"pair-{layers}")
        if not pair.exists():
            write_pair(pair, layers, settings.hidden, settings.mlp)
        command = ["-m", "uvmerge", "restore", *selection, "-q"]
        peak = peak_bytes([*command, str(pair / "base"), str(pair / "finetuned"), "out"])
        size = (pair / "finetuned" / "model.safetensors").stat().st_size
        shutil.rmtree("out")
        runs.append({"layers": layers, "bytes": size, "peak_beyond_imports_bytes": peak - imports})
        print(runs[-1], flush=True)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "edited": "all layers" if settings.all_layers else "layers 0-1",
        "largest_matrix": [settings.mlp, settings.hidden],
        "imports_bytes": imports,
        "runs": runs,
    }
    Path("peak.tmp").unlink()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
