"""Completion of Java data-transfer code from typed context: packer, prompt, cut, rules.

The idea of a context of six kinds is that of CCCI (arXiv 2503.23231), whose data and code are closed;
`docs/ccci.md` tells what is the paper's and what was decided here.
"""

from .packing import Index, open_index, pack
from .postprocess import cut, fits
from .prompting import infilling, prompt
from .rules import complete_by_rules
from .task import KINDS, MARKER, Hole, Infilling, Pack, Piece, Place, Prompt

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
