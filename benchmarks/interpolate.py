"""`uvmerge interpolate --scale 0.5` against mergekit's linear merge of the same two checkpoints.

    python3 -m venv mergekit-venv                      # of its own: its requirements differ
    mergekit-venv/bin/pip install torch==2.13.0 mergekit==0.1.5
    python benchmarks/interpolate.py FOLDER --mergekit mergekit-venv/bin/mergekit-yaml [--rounds 5]

Whole processes in turn (A B A B …) on a pair of about 1 GB each, which is made if it is not there.
mergekit runs with its defaults (weights 0.5 and 0.5, bfloat16 in and out), but without progress bars
and without a tokenizer, which these checkpoints do not have. The torch version should be that of
uvmerge. Ratios are taken round by round; the result is their median. The outputs are compared
element by element. Writes benchmarks/results/interpolate.json.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import (
    Run,
    about,
    median_ratio,
    medians,
    process,
    read_through,
    settle,
    table,
    write_result,
)
from synthetic import parser, write_pair

RECIPE = """\
merge_method: linear
dtype: bfloat16
out_dtype: bfloat16
models:
  - model: {base}
    parameters: {{weight: 0.5}}
  - model: {finetuned}
    parameters: {{weight: 0.5}}
"""
OFFLINE = {"HF_HUB_OFFLINE": "1"}
VERSIONS = "from importlib.metadata import version as v; print(v('mergekit'), v('torch'), v('transformers'))"  # fmt: skip


def differences(ours: Path, theirs: Path) -> dict[str, Any]:
    """How far two checkpoints in bfloat16 lie apart, in units in the last place."""
    import torch
    from safetensors import safe_open

    def ordered(
        tensor: torch.Tensor,
    ) -> torch.Tensor:  # neighbouring numbers, neighbouring integers
        bits = tensor.view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    elements = different = largest = 0
    ours_open, theirs_open = (
        [safe_open(file, "pt") for file in sorted(folder.glob("*.safetensors"))]
        for folder in (ours, theirs)
    )
    place = {name: file for file in theirs_open for name in file.keys()}  # noqa: SIM118
    names = [(file, name) for file in ours_open for name in file.keys()]  # noqa: SIM118
    if {name for _, name in names} != set(place):
        raise SystemExit("the two outputs hold different tensors")
    for file, name in names:
        pair = file.get_tensor(name), place[name].get_tensor(name)
        apart = (ordered(pair[0]) - ordered(pair[1])).abs()
        elements += apart.numel()
        different += int(apart.count_nonzero())
        largest = max(largest, int(apart.max()))
    return {"elements": elements, "different": different, "largest_ulp": largest}


def measured(commands: dict[str, list[str | Path]], rounds: int) -> dict[str, list[Run]]:
    """The runs of each command, in turn; its last argument, the output, stays from the last round."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            shutil.rmtree(command[-1], ignore_errors=True)
            settle()
            run = process(command, OFFLINE)
            runs[name].append(run)
            print(f"{name}: {run.wall_s:.2f} s, {run.peak_bytes / 1e6:.0f} MB", flush=True)
    return runs


def _of(figure: str, runs: list[Run]) -> list[float]:
    return [getattr(run, figure) for run in runs]


def main() -> None:
    options = parser(__doc__ or "")
    options.set_defaults(layers=6)
    options.add_argument("--mergekit", type=Path, required=True, help="path of mergekit-yaml")
    options.add_argument("--rounds", type=int, default=5)
    settings = options.parse_args()
    pair = settings.folder / f"pair-{settings.layers}-{settings.hidden}"
    base, finetuned = (pair / "base").absolute(), (pair / "finetuned").absolute()
    if not pair.exists():
        write_pair(pair, settings.layers, settings.hidden, settings.mlp)
    recipe = settings.folder / "linear.yaml"
    recipe.write_text(RECIPE.format(base=base, finetuned=finetuned))
    ours, fast, theirs = (settings.folder / name for name in ("exact", "fast", "mergekit"))
    uvmerge = [sys.executable, "-m", "uvmerge", "interpolate", "--scale", "0.5", "-q"]
    read_through(base, finetuned)
    runs = measured(
        {
            "exact": [*uvmerge, base, finetuned, ours],
            "fast": [*uvmerge, "--precision", "fast", base, finetuned, fast],
            "mergekit": [settings.mergekit, "--no-copy-tokenizer", "--quiet", recipe, theirs],
        },
        settings.rounds,
    )
    python = settings.mergekit.parent / "python"
    versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True)
    theirs_runs = runs["mergekit"]
    summary = {name: medians(found) for name, found in runs.items()}
    apart = differences(ours, theirs)
    result = {
        **about("torch", "uvmerge"),
        "mergekit": dict(
            zip(("mergekit", "torch", "transformers"), versions.stdout.split(), strict=True)
        ),
        "bytes_each": (base / "model.safetensors").stat().st_size,
        "rounds": settings.rounds,
        "summary": summary,
        "mergekit_over_it": {
            name: {
                "wall": median_ratio(_of("wall_s", theirs_runs), _of("wall_s", runs[name])),
                "cpu": median_ratio(_of("cpu_s", theirs_runs), _of("cpu_s", runs[name])),
                "peak": median_ratio(_of("peak_bytes", theirs_runs), _of("peak_bytes", runs[name])),
            }
            for name in ("exact", "fast")
        },
        "outputs": {"exact": apart, "fast": differences(fast, theirs)},
    }
    write_result("interpolate", result)
    for folder in (ours, fast, theirs):
        shutil.rmtree(folder)
    rows = [
        [name, f"{x['wall_s']:.2f}", f"{x['cpu_s']:.2f}", f"{x['peak_bytes'] / 1e6:.0f}"]
        for name, x in summary.items()
    ]
    print(table([["", "wall s", "CPU s", "peak MB"], *rows]))
    print(f"mergekit over it: {result['mergekit_over_it']}")
    print(f"outputs: {apart['different']} of {apart['elements']} elements differ, by at most {apart['largest_ulp']} ulp")  # fmt: skip


if __name__ == "__main__":
    main()
