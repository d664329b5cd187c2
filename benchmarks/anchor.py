"""`uvmerge anchor build` on the shapes of Llama-3.1-8B: size ahead, CPU time and peak memory.

    python benchmarks/anchor.py FOLDER [--all-matrices] [--rank 768]

The size, and what `--dry-run` takes, are those of the whole model, whose weights are a sparse file. The
build is of a cut of two layers with generated weights, with one matrix at a time (`--workers 1`): of
one matrix of the largest shape in the layers, and of one key projection, which takes another path
(k = 768 is most of its 1,024 triplets); `--all-matrices` builds the fourteen of both layers, which takes
several times as long. Embeddings and head are left out. FOLDER needs 2 GB. Writes
benchmarks/results/anchor.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from measure import UVMERGE_IMPORTS, about, imports_peak, process, write_result
from synthetic import Architecture, write_base

from uvmerge.checkpoint import header

IMPORTS = f"{UVMERGE_IMPORTS}; import uvmerge.api.anchor, uvmerge.engine.anchoring"
LLAMA_8B = Architecture("llama", 4096, 32, 8, 14_336, 128_256, biases=False, tied=False)
SPEC_BYTES = {"all": 4.43e9, "layers": 4.03e9}  # in 16 bit at k = 768


def write_sparse(folder: Path, architecture: Architecture, layers: int) -> Path:
    """A checkpoint of zeros that take no room on the disk."""
    shapes = architecture.tensors(layers)
    section, entries = header.build([(n, "BF16", s) for n, s in shapes], {"format": "pt"})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(architecture.config(layers)))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(section)
        os.ftruncate(file.fileno(), entries[-1].offset + entries[-1].size_bytes)
    return folder


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--all-matrices", action="store_true")
    options.add_argument("--rank", type=int, default=768)
    settings = options.parse_args()
    build = [sys.executable, "-m", "uvmerge", "anchor", "build"]
    rank = ["--rank", str(settings.rank), "--dtype", "bf16"]

    whole, planned = write_sparse(settings.folder / "8b", LLAMA_8B, 32), {}
    for scope, modules in (("all", ["--modules", "all"]), ("layers", [])):
        run = process(
            [*build, whole, settings.folder / "x", *rank, *modules, "--dry-run", "--json"]
        )
        told = json.loads(run.output)
        planned[scope] = {
            "bytes": told["bytes"], "bytes_over_spec": round(told["bytes"] / SPEC_BYTES[scope], 4),
            "wall_s": round(run.wall_s, 2), "cpu_s": round(run.cpu_s, 2),
        }  # fmt: skip
    shutil.rmtree(whole)

    cut = settings.folder / "cut"
    if not cut.exists():
        write_base(cut, LLAMA_8B, 2)
    out = settings.folder / "anchor.safetensors"
    chosen = () if settings.all_matrices else ("*.0.mlp.gate_proj.*", "*.1.self_attn.k_proj.*")
    command = [*build, cut, out, *rank, "--workers", "1"]
    command += [word for glob in chosen for word in ("--include", glob)]
    imports = imports_peak(IMPORTS)
    run = process([*command, "--json", "-q"])
    told = json.loads(run.output)
    size = out.stat().st_size
    out.unlink()
    m, n = LLAMA_8B.mlp, LLAMA_8B.hidden
    allowed = 3 * 2 * m * n + 6 * 8 * n * n
    result = {
        **about("torch", "uvmerge"),
        "rank": settings.rank,
        "dry_run_32_layers": planned,
        "build": {
            "matrices": list(told["k"]), "bytes": size,
            "cpu_s": round(run.cpu_s, 1),
            "wall_s": round(run.wall_s, 1), "phases_s": told["phases"],
            "imports_bytes": imports, "peak_beyond_imports_bytes": run.peak_bytes - imports,
            "three_matrices_and_six_squares_bytes": allowed,
        },
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    write_result("anchor", result)


if __name__ == "__main__":
    main()
