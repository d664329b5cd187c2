"""Peak resident memory of `uvmerge restore` on one large file, beyond what the imports take.

    python benchmarks/memory.py FOLDER [--all-layers]

Runs the command on a checkpoint pair and on one of twice the depth; `--all-layers` edits every layer
(minutes), otherwise the first two, which have the same matrices. Writes
benchmarks/results/memory.json.
"""

from __future__ import annotations

import json
import shutil
import sys

from measure import UVMERGE_IMPORTS, about, imports_peak, process, write_result
from synthetic import parser, write_pair


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--all-layers", action="store_true")
    settings = options.parse_args()
    selection = [] if settings.all_layers else ["--layers", "0-1"]
    imports = imports_peak(UVMERGE_IMPORTS)
    out = settings.folder / "out"
    runs = []
    for layers in (settings.layers, 2 * settings.layers):
        pair = settings.folder / f"pair-{layers}"
        base, finetuned = pair / "base", pair / "finetuned"
        if not pair.exists():
            write_pair(pair, layers, settings.hidden, settings.mlp)
        command = [sys.executable, "-m", "uvmerge", "restore", *selection, "-q"]
        peak = process([*command, base, finetuned, out]).peak_bytes
        size = (finetuned / "model.safetensors").stat().st_size
        shutil.rmtree(out)
        runs.append({"layers": layers, "bytes": size, "peak_beyond_imports_bytes": peak - imports})
        print(runs[-1], flush=True)
    result = {
        **about("torch", "uvmerge"),
        "edited": "all layers" if settings.all_layers else "layers 0-1",
        "largest_matrix": [settings.mlp, settings.hidden],
        "imports_bytes": imports,
        "runs": runs,
    }
    write_result("memory", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
