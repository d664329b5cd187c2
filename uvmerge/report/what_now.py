"""What a reader of a comparison does next: a sentence, and commands to paste. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import counted
from ..measure.findings import Compared, Findings
from ..measure.situation import (
    BROKEN,
    EDITED,
    EVERYWHERE,
    FEW_LAYERS,
    IDENTICAL,
    NO_MATRIX,
    ROUNDING,
    UNRELATED,
    Situation,
    situation,
)
from ..output.commands import Command, after_edit, baseline, block
from ..recipe.advice import advice
from ..text import as_ranges, brief
from .format import percent

_REPAIRABLE = (FEW_LAYERS, EVERYWHERE)
_MOST_ADVISED = 2


@dataclass(frozen=True)
class WhatNow:
    """What to do next.

    Attributes:
        sentence: what follows from what was found.
        commands: what to paste, in this order; empty where nothing is to be done.
    """

    sentence: str
    commands: tuple[Command, ...]

    def lines(self) -> list[str]:
        """The block for a terminal."""
        return block(f"what now: {self.sentence}", self.commands)


def what_now(
    findings: Findings, base: str = "BASE", finetuned: str = "FINETUNED", *, page: bool = True
) -> WhatNow:
    """What follows from a comparison; of several checkpoints, from the last.

    Args:
        base, finetuned: how commands name the two checkpoints.
        page: whether the page of the comparison is there already.
    """
    last = findings.compared[-1]
    found = situation(last)
    commands = list(_commands(found, base, finetuned))
    if not page and found.kind in (*_REPAIRABLE, UNRELATED, EDITED, ROUNDING, NO_MATRIX):
        look = ("uvmerge", "diff", base, finetuned, "--out", "report")
        commands.append(Command("every measure on one page", look))
    return WhatNow(_sentence(found, brief(findings.base), last), tuple(commands))


def _sentence(found: Situation, base: str, last: Compared) -> str:
    evaluate = "evaluate each candidate on the tasks that matter, those of the base included"
    layers = "layer" if len(found.layers) == 1 else "layers"
    return {
        UNRELATED: f"find the model that was fine-tuned: {base} is not it, or not at this revision;"
        " an edit of this pair would be refused.",
        IDENTICAL: "nothing is to be repaired; if the weights should differ, another checkpoint was"
        " saved or named.",
        BROKEN: "find out when NaN or Inf came into the matrices; edits refuse them, and with"
        " --nonfinite copy leave them as they are.",
        EDITED: f"{brief(last.label)} was made by uvmerge from"
        f" {brief(' and '.join(last.made_from))}, so no repair of it is suggested; evaluate it on the"
        " tasks that matter, those of the base included.",
        NO_MATRIX: "no matrix moved, so no spectral edit can repair anything; interpolation moves"
        " norms, biases and embeddings too.",
        ROUNDING: "the change is no more than rounding makes, so an edit has nothing to restore;"
        " evaluate both checkpoints before anything else.",
        FEW_LAYERS: f"{percent(found.share)} of the change lies in {layers}"
        f" {as_ranges(found.layers)} of {counted(found.depth, 'layer')}: repair these, and"
        f" {evaluate}.",
        EVERYWHERE: f"the change is spread over the layers: repair all of them, and {evaluate}.",
    }[found.kind]


def _advised(base: str, finetuned: str, only: tuple[str, ...]) -> Iterator[Command]:
    """What the study found better than interpolation; where that is nothing, interpolation itself."""
    given = advice()
    for number, better in enumerate(given.better[:_MOST_ADVISED], 1):
        words = ("uvmerge", better.operation, base, finetuned, f"candidate-{number}")
        where = () if "--frac" in better.options else only
        yield Command(
            f"above interpolation in the study ({better.seen})", (*words, *better.options, *where)
        )
    if not given.better:
        line = baseline(base, finetuned, "interpolated")
        pairs = counted(given.pairs, "small pair")
        yield Command(f"{line.why}, which no edit does on the {pairs} of the study", line.words)


def _commands(found: Situation, base: str, finetuned: str) -> Iterator[Command]:
    pair = (base, finetuned)
    if found.kind == UNRELATED:
        for each in pair:
            yield Command(f"what {each} is", ("uvmerge", "show", each))
    if found.kind == BROKEN:
        yield Command("the tensors that hold NaN or Inf", ("uvmerge", "check", finetuned))
    if found.kind == EDITED:
        yield from after_edit(None, None, finetuned, generates=False)
    only = ("--layers", as_ranges(found.layers)) if found.layers else ()
    if found.kind in _REPAIRABLE:
        yield from _advised(base, finetuned, only)
        sweep = ("uvmerge", "sweep", "restore", *pair, "candidates", "--top", "0.05,0.1,0.2,0.4")
        yield Command("candidates", (*sweep, *only))
    if found.kind == FEW_LAYERS:
        reset = ("uvmerge", "reset-layers", *pair, "candidate-reset")
        yield Command("the layers as in the base", (*reset, "--layers", as_ranges(found.layers)))
    if found.kind == NO_MATRIX or (found.kind in _REPAIRABLE and advice().better):
        yield baseline(base, finetuned, "interpolated")
