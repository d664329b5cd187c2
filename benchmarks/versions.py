"""`uvmerge restore --top 0.2` against an earlier version of uvmerge, and two workers against one.

    git worktree add ../before COMMIT
    python benchmarks/versions.py FOLDER --before ../before [--size 0.5b] [--layers 6] [--rounds 5]

Whole processes in turn (A B A B …) on the same pair: the version before and this one, under both
policies. Ratios are taken round by round; the result is their median. Then this version alone, on a
pair of two square matrices of `--side`, with one worker and with two, by the wall time of the edits and
of the whole command.

Writes benchmarks/results/versions.json.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from measure import (
    UVMERGE_IMPORTS,
    Run,
    about,
    imports_peak,
    median_ratio,
    medians,
    process,
    read_through,
    settle,
    table,
    write_result,
)
from safetensors.torch import save_file
from synthetic import matrix_pair, trained_parser, write_trained_pair

TOP = 0.2
POLICIES = ("exact", "fast")
HERE = Path(__file__).resolve().parent.parent


def restored(source: Path, pair: tuple[Path, Path], out: Path, *options: str) -> Run:
    """One run of the uvmerge in a source folder, on the CPU."""
    settle()
    command = [sys.executable, "-m", "uvmerge", "restore", "--top", str(TOP), "--device", "cpu"]
    run = process([*command, "-q", "--json", *options, *pair, out], {"PYTHONPATH": str(source)})
    shutil.rmtree(out)
    return run


def versions(before: Path, pair: tuple[Path, Path], out: Path, rounds: int) -> dict[str, Any]:
    """By policy, both versions' medians, and this version's as a share of the other's."""
    sources = {"before": before, "now": HERE}
    imports = {}
    for name, source in sources.items():
        statement = f"import sys; sys.path.insert(0, {str(source)!r}); {UVMERGE_IMPORTS}"
        imports[name] = imports_peak(statement)
    found: dict[str, Any] = {}
    for policy in POLICIES:
        runs: dict[str, list[Run]] = {name: [] for name in sources}
        for _ in range(rounds):
            for name, source in sources.items():
                runs[name].append(restored(source, pair, out, "--precision", policy))
        now, then = runs["now"], runs["before"]
        beyond = [
            [run.peak_bytes - imports[name] for run in runs[name]] for name in ("now", "before")
        ]
        found[policy] = {name: medians(several) for name, several in runs.items()} | {
            "now_over_before": {
                "wall": median_ratio([r.wall_s for r in now], [r.wall_s for r in then]),
                "cpu": median_ratio([r.cpu_s for r in now], [r.cpu_s for r in then]),
                "peak_beyond_imports": median_ratio(*beyond),
            }
        }
        print(policy, found[policy]["now_over_before"], flush=True)
    return {"imports_bytes": imports, **found}


def write_square_pair(folder: Path, side: int) -> tuple[Path, Path]:
    """Two checkpoints of two square matrices, in bfloat16."""
    pair = folder / "base", folder / "finetuned"
    matrices = [matrix_pair((side, side), seed) for seed in range(2)]
    for which, target in enumerate(pair):
        target.mkdir(parents=True)
        names = (f"model.layers.{i}.self_attn.o_proj.weight" for i in range(2))
        tensors = {name: two[which].bfloat16() for name, two in zip(names, matrices)}
        save_file(tensors, target / "model.safetensors", {"format": "pt"})
        (target / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 2}')
    return pair


def workers(pair: tuple[Path, Path], out: Path, rounds: int) -> dict[str, Any]:
    """Two workers' wall time as a share of one worker's."""
    taken: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(rounds):
        for count, walls in taken.items():
            run = restored(HERE, pair, out, "--precision", "exact", "--workers", str(count))
            walls.append((json.loads(run.output)["phases"]["edit"], run.wall_s))
    return {
        "edits_s": {n: statistics.median(edits for edits, _ in w) for n, w in taken.items()},
        "command_s": {n: statistics.median(wall for _, wall in w) for n, w in taken.items()},
        "two_over_one": {
            what: median_ratio([w[at] for w in taken[2]], [w[at] for w in taken[1]])
            for at, what in enumerate(("edits", "command"))
        },
    }


def main() -> None:
    parser = trained_parser(__doc__ or "")
    parser.add_argument("--before", type=Path, required=True, help="source of the other version")
    parser.add_argument("--side", type=int, default=2048, help="of the matrices for two workers")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder / f"{options.size}-{options.layers}-{options.strength:g}"
    pair = folder / "base", folder / "finetuned"
    if not folder.exists():
        write_trained_pair(folder, options.size, options.layers, options.strength)
    square = options.folder / f"square-{options.side}"
    squares = square / "base", square / "finetuned"
    if not square.exists():
        write_square_pair(square, options.side)
    read_through(*pair, *squares)
    out = options.folder / "out"
    found = versions(options.before.resolve(), pair, out, options.rounds)
    both = workers(squares, out, options.rounds)
    write_result("versions", {
        **about("torch", "scipy"),
        "pair": {"shapes": f"Qwen2.5-{options.size}", "layers": options.layers},
        "rounds": options.rounds,
        "restore": found,
        "workers": {"side": options.side, **both},
    })  # fmt: skip
    rows = [["now / before", "wall", "CPU", "peak beyond imports"]]
    rows += [[p, *map(str, found[p]["now_over_before"].values())] for p in POLICIES]
    print(table(rows))
    print("two workers / one:", both["two_over_one"])


if __name__ == "__main__":
    main()
