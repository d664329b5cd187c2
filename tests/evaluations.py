"""Folders as lm-evaluation-harness writes them, with the fields and oddities of its files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STAMP = "2026-11-20T10-33-22.123456"
Values = Sequence[Any]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sample(
    task: str,
    doc_id: int,
    metrics: Mapping[str, Any],
    kept: str = "none",
    prompt: str = "",
    **more: Any,
) -> dict[str, Any]:
    """A line of `samples_TASK_DATE.jsonl`."""
    question = f"{task} question {doc_id}"
    return {
        "doc_id": doc_id, "doc": {"question": question, "choices": ["a", "b"], **more},
        "target": "a",
        "arguments": {"gen_args_0": {"arg_0": f"{prompt}{question}", "arg_1": {"until": ["\n"]}}},
        "resps": [["a"]], "filtered_resps": ["a"], "filter": kept, "metrics": list(metrics),
        "doc_hash": digest(question), "prompt_hash": digest(f"{prompt}{question}"),
        "target_hash": digest("a"), **metrics,
    }  # fmt: skip


def mean_and_error(values: Values) -> tuple[float, float | str]:
    mean = sum(values) / len(values)
    spread = sum((v - mean) ** 2 for v in values)
    return mean, math.sqrt(spread / (len(values) - 1) / len(values)) if len(values) > 1 else "N/A"


def write_run(
    folder: Path,
    tasks: Mapping[str, Mapping[str, Values]],
    *,
    stamp: str = STAMP,
    samples: bool = True,
    prompt: str = "",
    hands: Sequence[str] | None = None,
    totals: Mapping[str, Mapping[str, float]] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """A run of the harness on tasks, each with the values of its metrics (`name` or `name,filter`).

    Args:
        totals: of metrics whose total is no mean.
        changes: keys of the results that are to be other ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    hashes = {}
    for task, metrics in tasks.items():
        row: dict[str, Any] = {"alias": task}
        lines = []
        for name, values in metrics.items():
            metric, _, kept = name.partition(",")
            kept = kept or "none"
            told = (totals or {}).get(task, {}).get(metric)
            mean, error = mean_and_error(values) if told is None else (told, "N/A")
            row |= {f"{metric},{kept}": mean, f"{metric}_stderr,{kept}": error}
            for i, value in enumerate(values):
                more = {} if hands is None else {"hand": hands[i].split()}
                lines.append(sample(task, i, {metric: value}, kept, prompt, **more))
        results[task] = row
        merged: dict[tuple[int, str], dict[str, Any]] = {}
        for line in lines:
            merged.setdefault((line["doc_id"], line["filter"]), {}).update(line)
        if samples:
            path = folder / f"samples_{task}_{stamp}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in merged.values()))
            hashes[task] = digest(
                "".join(x["doc_hash"] + x["prompt_hash"] for x in merged.values())
            )
    count = {task: len(next(iter(metrics.values()))) for task, metrics in tasks.items()}
    data = {
        "results": results,
        "group_subtasks": {task: [] for task in tasks},
        "configs": {
            task: {
                "task": task, "dataset_path": "json", "num_fewshot": 0, "doc_to_text": "<function f at 0x7f1>",
                "metadata": {"version": 1.0, "pretrained": str(folder)},
            }
            for task in tasks
        },
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {
            task: {name.partition(",")[0]: "perplexity" not in name for name in metrics}
            for task, metrics in tasks.items()
        },
        "n-samples": {task: {"original": n, "effective": n} for task, n in count.items()},
        "config": {"model": "hf", "model_args": f"pretrained={folder}", "limit": None},
        "model_name": str(folder), "chat_template_sha": None, "system_instruction_sha": None,
        "fewshot_as_multiturn": False, "task_hashes": hashes,
    }  # fmt: skip
    (folder / f"results_{stamp}.json").write_text(json.dumps(data | (changes or {}), indent=2))
    return folder
