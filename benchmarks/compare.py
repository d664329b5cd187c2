"""`uvmerge compare` of many checkpoints with many items, and the import of a card task.

    python benchmarks/compare.py FOLDER [--checkpoints 20] [--items 10000] [--rounds 3]

Folders as lm-evaluation-harness writes them, with lines of about 2 kB, are compared by whole processes:
first on a metric that is 0 or 1, then on one that is not. Goals: 10 s and 500 MB.

The tasks of the card game are loaded by lm-evaluation-harness after its own import, each in a process of
its own; the seconds are those of the processor, the harness's own part of the loading included. Goal: 0.5 s.

Writes benchmarks/results/compare.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from measure import about, medians, process, read_through, table, write_result

from uvmerge import tasks

STAMP = "2026-11-20T10-33-22.123456"
TEXT = "The quick brown fox jumps over the lazy dog, and then sits down. " * 6


LOADING = """
import sys, time
started = time.process_time()
import datasets
from lm_eval.tasks import TaskManager
imported = time.process_time()
TaskManager(include_path=sys.argv[2], include_defaults=False).load([sys.argv[1]])
print(imported - started, time.process_time() - imported)
"""


def digest(text: str) -> str:
    """The hash of a text as the harness has it."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_evaluation(folder: Path, metric: str, values: list[float]) -> None:
    """One model's results and samples."""
    folder.mkdir(parents=True)
    with (folder / f"samples_task_{STAMP}.jsonl").open("w", encoding="utf-8") as file:
        for i, value in enumerate(values):
            question = f"{TEXT}{i}"
            line: dict[str, Any] = {
                "doc_id": i, "doc": {"question": question, "choices": [TEXT[:60]] * 4}, "target": "1",
                "arguments": {f"gen_args_{j}": {"arg_0": question, "arg_1": " a"} for j in range(2)},
                "resps": [[["-12.5", "False"]]] * 4, "filtered_resps": [["-12.5", "False"]] * 4,
                "filter": "none", "metrics": [metric], "doc_hash": digest(question),
                "prompt_hash": digest(f"Q: {question}"), "target_hash": digest("1"), metric: value,
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")
    results = {
        "results": {"task": {f"{metric},none": sum(values) / len(values)}},
        "n-samples": {"task": {"original": len(values), "effective": len(values)}},
        "versions": {"task": 1.0},
        "higher_is_better": {"task": {metric: True}},
        "task_hashes": {"task": "one"},
    }
    (folder / f"results_{STAMP}.json").write_text(json.dumps(results), encoding="utf-8")


def write_all(folder: Path, metric: str, checkpoints: int, items: int) -> list[Path]:
    """Evaluations of checkpoints, each somewhat better than the one before."""
    shutil.rmtree(folder, ignore_errors=True)
    generator = random.Random(1)
    chances = [generator.random() for _ in range(items)]
    folders = [folder / f"checkpoint-{i}" for i in range(checkpoints)]
    for i, place in enumerate(folders):
        shares = [min(1.0, chance + 0.01 * i) for chance in chances]
        if metric == "acc":
            shares = [float(generator.random() < share) for share in shares]
        write_evaluation(place, metric, shares)
    return folders


def compared(settings: Any, metric: str) -> dict[str, Any]:
    """The figures of one metric."""
    folders = write_all(settings.folder / metric, metric, settings.checkpoints, settings.items)
    read_through(*folders)
    words = [f"{path.name}={path}" for path in folders]
    roles = ["--base", folders[-1].name, "--finetuned", folders[0].name]
    command = [sys.executable, "-m", "uvmerge", "compare", *words, *roles, "--json"]
    runs = [process(command) for _ in range(settings.rounds)]
    tests = json.loads(runs[0].output)["comparisons"]
    samples = sum(path.stat().st_size for place in folders for path in place.iterdir())
    return {"tests": tests, "input_bytes": samples, **medians(runs)}


def card_tasks(rounds: int) -> dict[str, Any]:
    """Seconds of the processor for the harness's own import, and for loading tasks after it."""
    found: dict[str, Any] = {}
    folder = str(Path(tasks.__file__).parent / "harness")
    for name in ("uvmerge_cards", "uvmerge_cards_large"):
        command = [sys.executable, "-c", LOADING, name, folder]
        runs = [list(map(float, process(command).output.split()[-2:])) for _ in range(rounds)]
        own, loading = (round(statistics.median(each), 3) for each in zip(*runs))
        found |= {"harness_import_cpu_s": own, f"{name}_cpu_s": loading}
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--checkpoints", type=int, default=20)
    options.add_argument("--items", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=3)
    settings = options.parse_args()
    found = {metric: compared(settings, metric) for metric in ("acc", "f1")}
    size = {"checkpoints": settings.checkpoints, "items": settings.items}
    size["processes_waiting"] = round(os.getloadavg()[0])  # on a loaded machine, cpu_s tells more
    cards = {"card_tasks": card_tasks(settings.rounds)}
    write_result("compare", about("uvmerge", "numpy", "lm_eval") | size | found | cards)
    rows = [("metric", "wall_s", "cpu_s", "peak_bytes")]
    rows += [(name, f["wall_s"], f["cpu_s"], f["peak_bytes"]) for name, f in found.items()]
    print(table(rows))
    print(cards)


if __name__ == "__main__":
    main()
