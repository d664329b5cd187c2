"""Cuts an answer to what fits the hole."""

from __future__ import annotations


def cut(answer: str, prefix: str, suffix: str) -> str:
    """The code of an answer: without fences, talk, repeated prefix and suffix, or what follows the
    end of the hole's block."""
    raise NotImplementedError


def fits(code: str, prefix: str, suffix: str) -> bool:
    """Whether the file with the code in it holds the same members as without it."""
    raise NotImplementedError
