"""What `uvmerge_ccci.yaml` names: the dataset and the metrics of the Java code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uvmerge.tasks.ccci import benchmark, scoring


def dataset(**_: Any) -> dict[str, Any]:
    """The holes with their prompts; the harness gives what is under `metadata`."""
    from datasets import Dataset

    rows = [
        {
            "id": task.hole.id, "doc": task.doc_id, "family": task.family,
            "doc_hash": scoring.doc_hash(task.hole),
            "prompt": benchmark.asked(task.hole)[1].text, "target": task.hole.gold,
        }
        for task in benchmark.tasks()
    ]  # fmt: skip
    return {"test": Dataset.from_list(rows)}


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The metrics of one answer."""
    return scoring.score(benchmark.tasks()[doc["doc"]], results[0])
