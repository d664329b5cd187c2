"""The prompt."""

from __future__ import annotations

from collections.abc import Container

from .task import Infilling, Pack, Prompt


def infilling(vocabulary: Container[str]) -> Infilling | None:
    """The infilling tokens that a tokenizer's vocabulary holds, or None."""
    raise NotImplementedError


def prompt(pack: Pack, prefix: str, suffix: str, style: str | Infilling = "instruct") -> Prompt:
    """The prompt for a hole: `instruct`, `plain`, or the infilling tokens of the model."""
    raise NotImplementedError
