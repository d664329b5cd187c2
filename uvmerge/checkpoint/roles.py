"""The roles that checkpoints play in a run: how they are named, in code and in sentences."""

from __future__ import annotations

BASE, FINETUNED = "base", "finetuned"


def spelled(role: str) -> str:
    """A role as a message names it: `fine-tuned` with its hyphen, every other as it is."""
    return "fine-tuned" if role == FINETUNED else role
