"""What Ray costs: seconds of a whole run beside the local engine, and milliseconds for each job.

    python benchmarks/ray_engine.py FOLDER [--counts 500,2000] [--rounds 3] [--workers 1,2] [--size 768]

A mixture of experts of tensors of 64 bytes, edited by `interpolate` in one job each: there is nothing to
compute, so what Ray adds for each job shows as the slope over the number of jobs, and what it adds to a
run as what is left at none. Beside it a pair of 24 square matrices, edited by `restore` with one and
with two workers of one thread, each of which imports torch in that time. `new` is a cluster of this machine that is started for the run and ends with it;
`running` one of two nodes of one CPU that is there already.
Writes benchmarks/results/ray.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from many_tensors import write_checkpoint
from measure import about, process, table, write_result
from safetensors.torch import save_file

MATRICES = 24
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def write_matrices(folder: Path, seed: int, size: int) -> Path:
    """A checkpoint of `MATRICES` square matrices."""
    start = torch.Generator().manual_seed(0)
    moved = torch.Generator().manual_seed(1)
    tensors = {}
    for layer in range(MATRICES // 4):
        for part in "qkvo":
            values = torch.randn(size, size, generator=start)
            values += 0.1 * seed * torch.randn(size, size, generator=moved)
            tensors[f"model.layers.{layer}.self_attn.{part}_proj.weight"] = values.bfloat16()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {"model_type": "llama", "num_hidden_layers": MATRICES // 4}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@contextmanager
def running() -> Iterator[str]:
    """The address of a cluster of two nodes of one CPU."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1)
        yield str(made.address)
    finally:
        made.shutdown()


def run(words: list[str], pair: list[Path], out: Path, *options: str) -> dict[str, float]:
    """One run as a process of its own: its wall seconds, and those of its phases."""
    command = [sys.executable, "-m", "uvmerge", words[0], *map(str, pair), str(out), *words[1:]]
    done = process([*command, "-q", "--json", *options], ONE_THREAD)
    shutil.rmtree(out)
    phases = json.loads(done.output)["phases"]
    return {
        "wall_s": done.wall_s,
        "edit_s": phases["edit"],
        "connect_s": phases.get("connect", 0.0),
    }


def median_of(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {key: round(statistics.median(each[key] for each in runs), 3) for key in runs[0]}


def overhead(folder: Path, address: str, counts: list[int], rounds: int) -> dict[str, Any]:
    """Runs with nothing to compute, by engine and number of jobs."""
    found: dict[str, Any] = {}
    for count in counts:
        pair = [write_checkpoint(folder / f"{count}-{seed}", count, seed) for seed in (0, 1)]
        ways = {"local": ["local"], "running": ["ray", "--address", address],
                "new": ["ray", "--address", "local"]}  # fmt: skip
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, engine in ways.items():
                words = ["interpolate", "--scale", "0.5", "--device", "cpu", "--engine", *engine]
                runs[way].append(run(words, pair, folder / "out"))
        found[str(count)] = {way: median_of(several) for way, several in runs.items()}
        for each in pair:
            shutil.rmtree(each)
    few, many = (found[str(count)] for count in (min(counts), max(counts)))
    extra = [each["running"]["edit_s"] - each["local"]["edit_s"] for each in (few, many)]
    found["ms_for_each_job"] = round(1e3 * (extra[1] - extra[0]) / (max(counts) - min(counts)), 3)
    for way in ("running", "new"):
        found[f"s_for_a_run_{way}"] = round(few[way]["wall_s"] - few["local"]["wall_s"], 2)
    return found


def speed_up(folder: Path, address: str, settings: argparse.Namespace) -> dict[str, Any]:
    """Runs that compute, by the number of batches in hand."""
    size, workers = settings.size, [int(n) for n in settings.workers.split(",")]
    pair = [write_matrices(folder / f"{size}-{seed}", seed, size) for seed in (0, 1)]
    words = ["restore", "--top", "0.2", "--device", "cpu", "--engine", "ray"]
    words += ["--address", address]
    found: dict[str, Any] = {"size": size}
    for count in workers:
        options = ("--workers", str(count))
        runs = [run(words, pair, folder / "out", *options) for _ in range(settings.rounds)]
        found[str(count)] = median_of(runs)
    found["ratio"] = round(found[str(workers[0])]["edit_s"] / found[str(workers[-1])]["edit_s"], 2)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--counts", default="500,2000")
    options.add_argument("--workers", default="1,2")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--size", type=int, default=768)
    settings = options.parse_args()
    counts = [int(n) for n in settings.counts.split(",")]
    load = os.getloadavg()[0]
    with running() as address:
        jobs = overhead(settings.folder, address, counts, settings.rounds)
        several = speed_up(settings.folder, address, settings)
    result: dict[str, Any] = {
        "load_before": load,
        "jobs": jobs,
        "workers": several,
        "load_after": os.getloadavg()[0],
        "about": about("uvmerge", "torch", "ray"),
    }
    rows: list[list[object]] = [["jobs", "engine", "wall s", "edit s", "connect s"]]
    for count in counts:
        for engine, figures in result["jobs"][str(count)].items():
            rows.append([count, engine, *figures.values()])
    print(table(rows))
    print(
        {key: value for key, value in jobs.items() if key.startswith(("ms", "s_"))},
        several["ratio"],
    )
    print(f"wrote {write_result('ray', result)}")


if __name__ == "__main__":
    main()
