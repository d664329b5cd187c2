"""Wall time, memory and error of `uvmerge restore --top 0.2` against the published procedure.

    python benchmarks/restore.py FOLDER [--size 0.5b|7b] [--layers 6] [--rounds 3] [--device cpu]

Whole processes in turn (A B C A B C …) on the same pair, which is made if it is not there:
`published.py`, uvmerge in `exact`, uvmerge in `fast`. The files are read once before, so that all
find them in the page cache. Ratios are taken round by round; the result is their median.

The error is that of the edit, relative to the edit, before the rounding to bfloat16:
‖W′ − W′₆₄‖ / ‖W′₆₄ − W_f‖ with W′₆₄ from a float64 SVD, on one matrix of each shape.

Writes benchmarks/results/restore.json. Nothing else should run beside it: with a core taken away,
multithreaded decompositions (those of the published procedure) slow down out of proportion.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from synthetic import SIZES, trained_parser, write_trained_pair

TOP = 0.2
POLICIES = ("exact", "fast")
CONTENDERS = ("published", *POLICIES)
PUBLISHED = Path(__file__).resolve().parent / "published.py"
PUBLISHED_IMPORTS = "import torch, safetensors.torch"


def command(contender: str, device: str) -> list[str | Path]:
    """The command line of a contender, less its three folders."""
    options = ["--top", str(TOP), "--device", device]
    if contender == "published":
        return [sys.executable, PUBLISHED, *options]
    uvmerge = [sys.executable, "-m", "uvmerge", "restore", *options]
    return [*uvmerge, "--precision", contender, "-q", "--json"]


def measured(pair: tuple[Path, Path], out: Path, rounds: int, device: str) -> dict[str, list[Run]]:
    """The runs of each contender, in turn."""
    runs: dict[str, list[Run]] = {contender: [] for contender in CONTENDERS}
    read_through(*pair)
    for _ in range(rounds):
        for contender in CONTENDERS:
            settle()
            run = process([*command(contender, device), *pair, out])
            shutil.rmtree(out)
            runs[contender].append(run)
            print(f"{contender}: {run.wall_s:.2f} s, {run.peak_bytes / 1e6:.0f} MB", flush=True)
    return runs


def as_data(run: Run) -> dict[str, Any]:
    """The figures of one run, and the seconds by phase where the command reports them."""
    figures = {"wall_s": run.wall_s, "cpu_s": run.cpu_s, "peak_bytes": run.peak_bytes}
    reported = json.loads(run.output) if run.output else {}
    return figures | ({"phases": reported["phases"]} if "phases" in reported else {})


def summary(runs: dict[str, list[Run]], imports: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Medians of each contender, and what the published procedure takes as a multiple of it."""
    theirs = runs["published"]

    def beyond_imports(contender: str) -> list[float]:
        bare = imports["published" if contender == "published" else "uvmerge"]
        return [run.peak_bytes - bare for run in runs[contender]]

    found: dict[str, dict[str, Any]] = {}
    for name, ours in runs.items():
        found[name] = medians(ours)
        found[name]["peak_beyond_imports_bytes"] = int(statistics.median(beyond_imports(name)))
        found[name]["published_over_it"] = {
            "wall": median_ratio([r.wall_s for r in theirs], [r.wall_s for r in ours]),
            "cpu": median_ratio([r.cpu_s for r in theirs], [r.cpu_s for r in ours]),
            "peak": median_ratio([r.peak_bytes for r in theirs], [r.peak_bytes for r in ours]),
            "peak_beyond_imports": median_ratio(beyond_imports("published"), beyond_imports(name)),
        }
    return found


def samples(size: str) -> list[str]:
    """One matrix of each shape, from the first layer."""
    by_shape: dict[tuple[int, ...], str] = {}
    for name, shape in SIZES[size].tensors(1):
        if "layers.0." in name and len(shape) == 2:
            by_shape.setdefault(shape, name)
    return list(by_shape.values())


def errors(pair: tuple[Path, Path], names: Sequence[str], device: str) -> list[dict[str, Any]]:
    """The error of each contender's edit, by matrix, before any rounding to the stored dtype."""
    import published
    import torch
    from safetensors import safe_open

    from uvmerge.operations.restore import restore
    from uvmerge.spectral.matrix import DenseMatrix
    from uvmerge.spectral.precision import POLICIES as PRECISIONS, single_threaded

    found = []
    for name in names:
        W_b, W_f = (
            safe_open(folder / "model.safetensors", "pt").get_tensor(name).to(device)
            for folder in pair
        )
        reference = published.restored(W_b.double().cpu(), W_f.double().cpu(), TOP).to(device)
        edit = torch.linalg.norm(reference - W_f.double())
        results = {"published": published.restored(W_b.float(), W_f.float(), TOP)}
        with single_threaded():
            for policy in POLICIES:
                precision = PRECISIONS[policy]
                operands = DenseMatrix("b", W_b, precision), DenseMatrix("f", W_f, precision)
                results[policy] = restore(*operands, top=TOP).tensor
        figures = {
            contender: float(f"{float(torch.linalg.norm(W.double() - reference) / edit):.3g}")
            for contender, W in results.items()
        }
        relative = float(edit / torch.linalg.norm(W_f.double()))
        row = {"tensor": name, "shape": list(W_f.shape), "edit": float(f"{relative:.3g}")}
        found.append(row | {"error": figures})
        print(f"error of {name}: {figures}", flush=True)
    return found


def printed(found: dict[str, Any], wrong: list[dict[str, Any]]) -> str:
    """The result as text."""
    rows: list[list[object]] = [["", "wall s", "CPU s", "peak MB", "beyond imports MB", "published is", "worst error"]]  # fmt: skip
    for name, figures in found.items():
        rows.append([
            name, f"{figures['wall_s']:.2f}", f"{figures['cpu_s']:.2f}",
            f"{figures['peak_bytes'] / 1e6:.0f}",
            f"{figures['peak_beyond_imports_bytes'] / 1e6:.0f}",
            f"{figures['published_over_it']['wall']:.2f} x",
            f"{max(row['error'][name] for row in wrong):.1e}",
        ])  # fmt: skip
    return table(rows)


def main() -> None:
    options = trained_parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--device", default="cpu")
    settings = options.parse_args()
    folder = settings.folder / f"{settings.size}-{settings.layers}-{settings.strength:g}"
    pair = folder / "base", folder / "finetuned"
    if not folder.exists():
        write_trained_pair(folder, settings.size, settings.layers, settings.strength)
    imports = {
        "published": imports_peak(PUBLISHED_IMPORTS),
        "uvmerge": imports_peak(UVMERGE_IMPORTS),
    }
    runs = measured(pair, settings.folder / "out", settings.rounds, settings.device)
    found = summary(runs, imports)
    wrong = errors(pair, samples(settings.size), settings.device)
    write_result("restore", {
        **about("torch", "safetensors", "uvmerge"),
        "device": settings.device,
        "pair": {
            "shapes": f"Qwen2.5-{settings.size}", "layers": settings.layers,
            "strength": settings.strength,
            "bytes_each": (pair[0] / "model.safetensors").stat().st_size,
        },
        "top": TOP,
        "rounds": settings.rounds,
        "imports_bytes": imports,
        "summary": found,
        "error_relative_to_the_edit": wrong,
        "runs": {name: [as_data(run) for run in ran] for name, ran in runs.items()},
    })  # fmt: skip
    print(printed(found, wrong))


if __name__ == "__main__":
    main()
