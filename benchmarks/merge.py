"""`uvmerge merge linear` and `merge ties` against mergekit, and what many tensors and models cost.

    python3 -m venv mergekit-venv                      # of its own: its requirements differ
    mergekit-venv/bin/pip install torch==2.13.0 mergekit==0.1.5
    python benchmarks/merge.py FOLDER --mergekit mergekit-venv/bin/mergekit-yaml [--rounds 3]

Whole processes in turn (A B A B …), imports included, on checkpoints of about 1 GB each, which are made
if they are not there: linear of two models, ties of two models and their base (density 0.5). mergekit
runs with its defaults in bfloat16, but without progress bars and without a tokenizer, which these
checkpoints do not have. Ratios are taken round by round; the result is their median. Then ties of one,
two and three models in uvmerge alone, and both merges of two checkpoints of 8,000 small tensors. Writes
benchmarks/results/merge.json.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from interpolate import VERSIONS, measured
from many_tensors import write_checkpoint
from measure import about, median_ratio, medians, process, read_through, table, write_result
from synthetic import parser, write_pair

STRENGTHS = {"a": 0.01, "b": -0.008, "c": 0.005}  # how far each fine-tune lies from the base
MANY = 8000
UVMERGE = [sys.executable, "-m", "uvmerge", "merge"]


def write_models(folder: Path, layers: int, hidden: int, mlp: int) -> None:
    """`folder/base` and a fine-tune for each strength."""
    for letter, strength in STRENGTHS.items():
        base, finetuned = write_pair(
            folder / f"pair-{letter}", layers, hidden, mlp, strength=strength
        )
        finetuned.rename(folder / letter)
        if not (folder / "base").exists():
            base.rename(folder / "base")
        shutil.rmtree(folder / f"pair-{letter}")


def recipes(folder: Path, models: Path) -> dict[str, Path]:
    """What mergekit runs, in JSON, which is YAML."""
    both = [str(models / letter) for letter in "ab"]
    weights = {"weight": 0.5}
    shared = {"dtype": "bfloat16", "out_dtype": "bfloat16"}
    texts: dict[str, dict[str, Any]] = {
        "linear": {"models": [{"model": m, "parameters": weights} for m in both]},
        "ties": {
            "models": [{"model": m, "parameters": weights | {"density": 0.5}} for m in both],
            "base_model": str(models / "base"),
        },
    }
    found = {}
    for method, text in texts.items():
        found[method] = folder / f"{method}.yaml"
        found[method].write_text(json.dumps({"merge_method": method, **shared, **text}))
    return found


def ties(models: Path, letters: str, out: Path) -> list[str | Path]:
    """The command that merges some models by ties."""
    options = ["--weight", "0.5", "--density", "0.5", "-q"]
    return [*UVMERGE, "ties", *options, models / "base", *(models / x for x in letters), out]


def against(settings: Any, models: Path) -> dict[str, Any]:
    """Both merges in both tools."""
    folder, found = settings.folder, {}
    texts = recipes(folder, models)
    linear = [*UVMERGE, "linear", "--weight", "0.5", "-q", models / "a", models / "b"]
    ours = {"linear": [*linear, folder / "ours"], "ties": ties(models, "ab", folder / "ours")}
    for method, text in texts.items():
        peer = [settings.mergekit, "--no-copy-tokenizer", "--quiet", text, folder / "theirs"]
        print(method, flush=True)
        runs = measured({"uvmerge": ours[method], "mergekit": peer}, settings.rounds)
        ratios = {
            figure: median_ratio(
                (getattr(run, f"{figure}_{unit}") for run in runs["mergekit"]),
                (getattr(run, f"{figure}_{unit}") for run in runs["uvmerge"]),
            )
            for figure, unit in (("wall", "s"), ("cpu", "s"), ("peak", "bytes"))
        }
        found[method] = {name: medians(each) for name, each in runs.items()}
        found[method]["mergekit_over_uvmerge"] = ratios
    return found


def more_models(folder: Path, models: Path) -> dict[str, Any]:
    """Ties of one, two and three models."""
    commands = {
        f"{n} models": [*ties(models, "abc"[:n], folder / "out")] for n in range(1, 1 + len("abc"))
    }
    return {name: medians(runs) for name, runs in measured(commands, 1).items()}


def many(folder: Path, rounds: int) -> dict[str, Any]:
    """Both merges of checkpoints of many small tensors."""
    places = [folder / f"many-{seed}" for seed in range(3)]
    for seed, place in enumerate(places):
        if not place.exists():
            write_checkpoint(place, MANY, seed)
    commands: dict[str, list[str | Path]] = {
        "linear": [*UVMERGE, "linear", "--force", "-q", *places[1:], folder / "out"],
        "ties": [*UVMERGE, "ties", "--force", "--density", "0.5", "-q", *places, folder / "out"],
    }
    return {name: medians(runs) for name, runs in measured(commands, rounds).items()}


def main() -> None:
    options = parser(__doc__ or "")
    options.set_defaults(layers=6)
    options.add_argument("--mergekit", type=Path, required=True, help="path of mergekit-yaml")
    options.add_argument("--rounds", type=int, default=3)
    settings = options.parse_args()
    settings.folder = settings.folder.absolute()
    models = settings.folder / f"models-{settings.layers}-{settings.hidden}"
    if not models.exists():
        write_models(models, settings.layers, settings.hidden, settings.mlp)
    read_through(*(models / name for name in ("base", *STRENGTHS)))
    python = settings.mergekit.parent / "python"
    versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True)
    names = ("mergekit", "torch", "transformers")
    result = {
        **about("torch", "uvmerge"),
        "mergekit": dict(zip(names, versions.stdout.split(), strict=True)),
        "bytes_each": (models / "base" / "model.safetensors").stat().st_size,
        "rounds": settings.rounds,
        "merges": against(settings, models),
        "ties": more_models(settings.folder, models),
        "tensors": {"count": MANY, **many(settings.folder, settings.rounds)},
        "start": medians([process([sys.executable, "-m", "uvmerge", "--version"])]),
    }
    rows = [["", "wall", "cpu", "peak"]]
    for method, found in result["merges"].items():
        ratio = found["mergekit_over_uvmerge"]
        rows += [[method, *(f"{ratio[figure]} x" for figure in ("wall", "cpu", "peak"))]]
    print(table(rows))
    write_result("merge", result)


if __name__ == "__main__":
    main()
