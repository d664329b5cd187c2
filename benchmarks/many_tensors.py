"""Time of planning and writing a mixture of experts of many small tensors.

    python benchmarks/many_tensors.py FOLDER [--counts 2000,4000,8000,16000] [--rounds 3]

Tensors of 64 bytes (4 × 8 in bfloat16), three to an expert, edited by `restore --top 0.25`: whatever a
run costs per tensor shows. Whole processes; the time of `uvmerge --version` and of importing torch is
in all of them. Writes benchmarks/results/many_tensors.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from measure import about, medians, process, settle, table, write_result
from safetensors.torch import save_file

from uvmerge.checkpoint.weight_files import partition, shard_names

EXPERTS = 128
SHARD_TENSORS = 4000


def write_checkpoint(folder: Path, count: int, seed: int) -> Path:
    """A sharded checkpoint of `count` expert matrices, named as in Qwen3-MoE."""
    generator = torch.Generator().manual_seed(seed)
    names = [
        f"model.layers.{i // (3 * EXPERTS)}.mlp.experts.{i // 3 % EXPERTS}.{part}_proj.weight"
        for i, part in zip(range(count), ("gate", "up", "down") * count)
    ]
    shift = 0.1 * seed * torch.randn(count, 4, 8, generator=generator)
    base = torch.randn(count, 4, 8, generator=torch.Generator().manual_seed(0))
    values = (base + shift).bfloat16()
    folder.mkdir(parents=True)
    groups = partition([1] * count, SHARD_TENSORS)
    weight_map = {}
    for file, group in zip(shard_names(len(groups)), groups):
        save_file({names[i]: values[i] for i in group}, folder / file, {"format": "pt"})
        weight_map |= {names[i]: file for i in group}
    index = {"metadata": {}, "weight_map": weight_map}
    if len(groups) > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    layers = -(-count // (3 * EXPERTS))
    config = {"model_type": "qwen3_moe", "num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--counts", default="2000,4000,8000,16000")
    options.add_argument("--rounds", type=int, default=3)
    settings = options.parse_args()
    rows = []
    for count in map(int, settings.counts.split(",")):
        pair = [settings.folder / f"{count}-{role}" for role in ("base", "finetuned")]
        for seed, folder in enumerate(pair):
            if not folder.exists():
                write_checkpoint(folder, count, seed)
        out, runs, planned = settings.folder / "out", [], []
        for _ in range(settings.rounds):
            settle()
            command = [
                sys.executable,
                "-m",
                "uvmerge",
                "restore",
                "--top",
                "0.25",
                "-q",
                *pair,
                out,
            ]
            planned.append(process([*command, "--dry-run", "--json"]))
            runs.append(process([*command]))
            shutil.rmtree(out)
        rows.append(
            {"tensors": count, "plan": medians(planned), "run": medians(runs),
             "per_tensor_ms": round(1e3 * medians(runs)["wall_s"] / count, 3)}
        )  # fmt: skip
        print(rows[-1], flush=True)
    write_result("many_tensors", about() | {"runs": rows})
    print(table([("tensors", "plan s", "run s")] + [
        (r["tensors"], r["plan"]["wall_s"], r["run"]["wall_s"]) for r in rows
    ]))  # fmt: skip


if __name__ == "__main__":
    main()
