"""Completion of Java data-transfer code from typed context: packer, prompt, cut, rules.

The idea of a context of six kinds is that of CCCI (arXiv 2503.23231), whose data and code are closed;
`docs/ccci.md` tells what is the paper's and what was decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .task import KINDS, MARKER, Hole, Infilling, Pack, Piece, Place, Prompt

if TYPE_CHECKING:
    from .packing import Index, open_index, pack
    from .postprocess import cut, fits
    from .prompting import infilling, prompt
    from .rules import complete_by_rules

_LAZY = {
    "Index": "packing",
    "complete_by_rules": "rules",
    "cut": "postprocess",
    "fits": "postprocess",
    "infilling": "prompting",
    "open_index": "packing",
    "pack": "packing",
    "prompt": "prompting",
}

__all__ = [
    "KINDS",
    "MARKER",
    "Hole",
    "Index",
    "Infilling",
    "Pack",
    "Piece",
    "Place",
    "Prompt",
    "complete_by_rules",
    "cut",
    "fits",
    "infilling",
    "open_index",
    "pack",
    "prompt",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: the command line needs none of them to print its help."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
