"""A completer without a model."""

from __future__ import annotations

from .task import Pack, Prompt


def complete_by_rules(pack: Pack, prompt: Prompt) -> str:
    """The code that fixed rules write from the pack alone; empty where they know nothing."""
    raise NotImplementedError
