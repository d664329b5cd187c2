"""Plans of large models: estimates beside measured edits, and the shares of a thousand workers.

    python benchmarks/scale.py FOLDER [--only estimates,measured,trillion,cluster] [--limit 90]

The checkpoints have the shapes of published models, their headers alone and no values (sparse files that
take no room). `estimates` are those of `uvmerge plan restore --top 0.2 --estimate` for each model, on the
machine that runs this. `measured` times one real edit of each shape, of noise, as seconds of the
processor, and scales it up by the number of such edits; beside it stand the estimate, and what smaller sizes
alone would say. Shapes whose edit is estimated at more than `--limit` seconds are left out and named. `trillion` is the time and the memory of planning a mixture of
experts of 1 T parameters to a file. `cluster` is the largest of 1,000 shares of the mixture of experts of
671 B parameters over the mean share, and how long its plan and shares take.

Writes benchmarks/results/scale.json; parts that are not asked for are kept as they are there.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from measure import RESULTS, about, table, write_result

import uvmerge
from uvmerge.api import plan_file
from uvmerge.checkpoint import header
from uvmerge.engine import calibration
from uvmerge.engine.local import jobs
from uvmerge.engine.settings import Settings
from uvmerge.engine.shares import cost, shares
from uvmerge.plan.steps import Plan

TOP = 0.2
WORKERS = 1000
PARTS = ("estimates", "measured", "trillion", "cluster")
GB = 1e9


@dataclass(frozen=True)
class Model:
    """Shapes of a decoder with grouped-query attention, and of experts from some layer on.

    Attributes:
        latent: q_lora_rank, kv_lora_rank, and the sizes of a head without positions, of positions and of
            values, where attention is latent as in DeepSeek-V3; else None.
        experts, expert, dense: number of experts, rows of one, and layers before the first that has any.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    latent: tuple[int, int, int, int, int] | None = None
    experts: int = 0
    expert: int = 0
    dense: int = 0

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            for name, shape in self._layer(layer):
                yield f"model.layers.{layer}.{name}.weight", shape
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    def _layer(self, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        hidden, heads = self.hidden, self.heads
        if self.latent is None:
            kv = hidden // heads * self.kv_heads
            for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
                yield f"self_attn.{name}_proj", (rows, hidden)
            yield "self_attn.o_proj", (hidden, hidden)
        else:
            q, kv, plain, turned, values = self.latent
            yield "self_attn.q_a_proj", (q, hidden)
            yield "self_attn.q_b_proj", (heads * (plain + turned), q)
            yield "self_attn.kv_a_proj_with_mqa", (kv + turned, hidden)
            yield "self_attn.kv_b_proj", (heads * (plain + values), kv)
            yield "self_attn.o_proj", (hidden, heads * values)
        if self.experts and layer >= self.dense:
            yield "mlp.gate", (self.experts, hidden)
            names = [*(f"mlp.experts.{n}" for n in range(self.experts)), "mlp.shared_experts"]
            rows = self.expert
        else:
            names, rows = ["mlp"], self.mlp
        for name in names:
            yield f"{name}.gate_proj", (rows, hidden)
            yield f"{name}.up_proj", (rows, hidden)
            yield f"{name}.down_proj", (hidden, rows)
        yield "input_layernorm", (hidden,)
        yield "post_attention_layernorm", (hidden,)


DEEPSEEK = (1536, 512, 128, 64, 128)
MODELS = {
    "8B (Llama 3.1)": Model(32, 4096, 32, 8, 14336, 128256),
    "70B (Llama 3.1)": Model(80, 8192, 64, 8, 28672, 128256),
    "405B (Llama 3.1)": Model(126, 16384, 128, 8, 53248, 128256),
    "671B, 256 experts (DeepSeek-V3)": Model(
        61, 7168, 128, 128, 18432, 129280, DEEPSEEK, 256, 2048, 3
    ),
    "1T, 384 experts (Kimi K2)": Model(61, 7168, 64, 64, 18432, 163840, DEEPSEEK, 384, 2048, 1),
}
MIXTURE, TRILLION = list(MODELS)[3:]


def write_sparse(folder: Path, model: Model) -> tuple[Path, Path]:
    """A pair of checkpoints in BF16 with a file for each layer; the files hold headers and no values."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "num_hidden_layers": model.layers, "hidden_size": model.hidden,
    }  # fmt: skip
    if model.experts:
        config |= {"n_routed_experts": model.experts, "num_local_experts": model.experts}
    files: dict[str, list[tuple[str, str, tuple[int, ...]]]] = {}
    for name, shape in model.tensors():
        layer = name.split(".")[2] if ".layers." in name else "rest"
        files.setdefault(f"model-{layer}.safetensors", []).append((name, "BF16", shape))
    index = {name: file for file, entries in files.items() for name, _, _ in entries}
    for role in ("base", "finetuned"):
        place = folder / role
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(config))
        (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        for file, entries in files.items():
            section, placed = header.build(entries, {"format": "pt"})
            with (place / file).open("wb") as stream:
                stream.write(section)
                stream.truncate(placed[-1].offset + placed[-1].size_bytes)
    return folder / "base", folder / "finetuned"


def planned(pair: tuple[Path, Path], out: Path) -> Plan:
    """The plan of a restore."""
    return uvmerge.restore(*pair, out, top=TOP, force=True, dry_run=True, quiet=True).plan


def estimates(folder: Path) -> dict[str, Any]:
    """The estimate of each model."""
    found = {}
    for name, model in MODELS.items():
        pair = write_sparse(folder, model)
        started = time.process_time()
        result = uvmerge.restore(
            *pair, folder / "out", top=TOP, force=True, estimate=True, quiet=True, device="cpu"
        )
        assert result.estimate is not None
        found[name] = {
            **result.estimate.as_data(), "matrices": result.plan.counts()["edited"],
            "estimating_cpu_s": round(time.process_time() - started, 1),
        }  # fmt: skip
        print(name, json.dumps(found[name]), flush=True)
        shutil.rmtree(folder)
    return found


def measured(folder: Path, limit: float) -> dict[str, Any]:
    """One real edit of each shape of the mixture of 1 T parameters, beside its estimate."""
    plan = planned(write_sparse(folder, MODELS[TRILLION]), folder / "out")
    shutil.rmtree(folder)
    pending = [job for job in jobs([plan]) if job.action == "edit"]
    with mock.patch.object(calibration, "LONGEST_S", 0.0):
        scaled = calibration.seconds_of([plan], pending, Settings())
    seconds = calibration.seconds_of([plan], pending, Settings())
    shapes = [job.steps[0].blocks[0].view.shape for job in pending]
    counts, rows, skipped = Counter(shapes), [], []
    for shape, count in counts.items():
        expected = seconds[shapes.index(shape)]
        if expected > limit:
            skipped.append(
                {"shape": list(shape), "count": count, "estimated_s": round(expected, 1)}
            )
            continue
        step = pending[shapes.index(shape)].steps[0]
        with mock.patch.multiple(calibration, SIDE=min(shape), MATRIX_ELEMENTS=shape[0] * shape[1]):
            taken, _ = calibration.shrunk_time([plan], [step], Settings(), 1.0)
        rows.append({
            "shape": list(shape), "count": count,
            "from_smaller_s": round(scaled[shapes.index(shape)], 2),
            "estimated_s": round(expected, 2), "measured_s": round(taken, 2),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    kinds = ("from_smaller_s", "estimated_s", "measured_s")
    whole = {kind: sum(row["count"] * row[kind] for row in rows) for kind in kinds}
    return {
        "model": TRILLION, "shapes": rows, "not_measured": skipped,
        "scaled_up_s": {k: round(v) for k, v in whole.items()},
        "from_smaller_over_measured": round(whole["from_smaller_s"] / whole["measured_s"], 3),
        "estimated_over_measured": round(whole["estimated_s"] / whole["measured_s"], 3),
    }  # fmt: skip


def trillion(folder: Path) -> dict[str, Any]:
    """Seconds and memory of a process that plans the mixture of 1 T parameters to a file."""
    write_sparse(folder, MODELS[TRILLION])
    done = subprocess.run([sys.executable, __file__, str(folder), "--plan"], check=True,
                          capture_output=True, text=True)  # fmt: skip
    shutil.rmtree(folder)
    return {"model": TRILLION, **json.loads(done.stdout)}


def plan_to_file(folder: Path) -> None:
    """Plan the pair in a folder to a file, read the file, and print the figures of this process."""
    file, pair = folder / "plan.json", (folder / "base", folder / "finetuned")
    wall, cpu = time.perf_counter(), time.process_time()
    uvmerge.restore(*pair, folder / "out", top=TOP, plan=file, force=True, quiet=True, device="cpu")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    reading = time.process_time()
    read = plan_file.read(file)
    print(json.dumps({
        "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_bytes": peak,
        "file_bytes": file.stat().st_size, "steps": len(read.plans[0].steps),
        "reading_cpu_s": round(time.process_time() - reading, 2),
    }))  # fmt: skip


def cluster(folder: Path) -> dict[str, Any]:
    """The shares of a cluster: the largest over the mean, by the planner's costs and by estimated ones."""
    plan = planned(write_sparse(folder, MODELS[MIXTURE]), folder / "out")
    shutil.rmtree(folder)
    pending = jobs([plan])
    found: dict[str, Any] = {"model": MIXTURE, "workers": WORKERS, "jobs": len(pending)}
    for kind, costs in {
        "planned": [cost(job) for job in pending],
        "estimated": calibration.seconds_of([plan], pending, Settings()),
    }.items():
        started = time.process_time()
        parts = shares(pending, WORKERS, costs)
        taken = time.process_time() - started
        loads = [sum(costs[number] for number in part) for part in parts]
        found[kind] = {
            "largest_over_mean": round(max(loads) / (sum(loads) / WORKERS), 4),
            "largest_job_over_mean": round(max(costs) / (sum(loads) / WORKERS), 4),
            "files_of_a_worker": round(
                sum(len({pending[n].steps[0].file for n in part}) for part in parts) / WORKERS, 1
            ),
            "sharing_cpu_s": round(taken, 2),
        }
        print(kind, json.dumps(found[kind]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to work; it has to be missing")
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated parts")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds of an edit to measure")
    parser.add_argument("--plan", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        plan_to_file(options.folder)
        return
    path = RESULTS / "scale.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in options.only.split(","):
        made = {
            "estimates": estimates, "trillion": trillion, "cluster": cluster,
            "measured": lambda folder: measured(folder, options.limit),
        }[part](options.folder)  # fmt: skip
        result[part] = {**about("torch", "uvmerge"), "top": TOP, "found": made}
        write_result("scale", result)
    rows = [["model", "bytes in", "multiply-adds", "one worker h", "64 workers h", "memory GB"]]
    for name, of in result.get("estimates", {}).get("found", {}).items():
        hours = [of["seconds_by_workers"].get(n, 0) / 3600 for n in ("1", "64")]
        rows.append([
            name, f"{of['bytes_in'] / GB:.0f} GB", f"{of['multiply_adds']:.3g}",
            *(f"{each:.1f}" for each in hours), f"{of['memory_bytes_per_worker'] / GB:.1f}",
        ])  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()
