"""What `_cards_yaml` names: the dataset, the texts and the metrics of the card game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uvmerge.tasks import cards, hands, prompts


def dataset(rule: str, hands_asked: int, **_: Any) -> dict[str, Any]:
    """The hands of a rule; the harness gives everything under `metadata`, and the model's arguments."""
    from datasets import Dataset

    asked = hands.frozen(rule)[:hands_asked]
    return {"test": Dataset.from_list([prompts.document(hand) for hand in asked])}


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, int]:
    """The metrics of one answer."""
    verdict = cards.judge_answer(results[0], doc["values"])
    return {
        "success": int(verdict.ok),
        "format_error": int(verdict.reason == "format"),
        "published": int(verdict.published),
    }
