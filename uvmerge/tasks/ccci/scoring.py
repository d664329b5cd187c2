"""From answers to the rows of an evaluation: cut, judged, compared with the code that was there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xxhash

from .benchmark import TASK, Task
from .judge import Judgement, judge
from .metrics import NO_CODEBLEU, has_codebleu, similarities
from .postprocess import cut, fits
from .sandbox import Java
from .task import Hole

_OUTSIDE = Judgement(False, False, "it does not stay inside of the hole")


def missing_metrics() -> dict[str, str]:
    """Of each similarity metric that cannot be computed here, why, and what to do."""
    return {} if has_codebleu() else {"codebleu": NO_CODEBLEU}


def scored(
    told: Sequence[tuple[Task, str]], tools: tuple[Java, str] | None
) -> list[dict[str, Any]]:
    """A row for each answer, in the order given.

    Args:
        told: each task and the completer's answer.
        tools: what the judge's `available` found; None to leave the tests out.
    """
    codes = [cut(answer, task.hole.prefix, task.hole.suffix) for task, answer in told]
    judged = judged_inside([(t.hole, code) for (t, _), code in zip(told, codes)], tools)
    return [
        {
            "task": TASK, "doc_id": task.doc_id, "id": task.hole.id, "doc_hash": doc_hash(task.hole),
            "domain": task.hole.domain, "family": task.family, "needs": list(task.hole.needs),
            **_verdict(verdict), **similarities(code, task.hole.gold), "code": code,
        }
        for (task, _), code, verdict in zip(told, codes, judged)
    ]  # fmt: skip


def judged_inside(
    candidates: Sequence[tuple[Hole, str]], tools: tuple[Java, str] | None
) -> list[Judgement | None]:
    """What the judge says of each code; code that reaches out of its hole fails without it."""
    inside = [fits(code, hole.prefix, hole.suffix) for hole, code in candidates]
    if tools is None:
        return [None] * len(candidates)
    found = iter(judge([each for each, within in zip(candidates, inside) if within], tools))
    return [next(found) if within else _OUTSIDE for within in inside]


def doc_hash(hole: Hole) -> str:
    """A hash of the file that the hole is in, and of where it is."""
    text = f"{hole.file}\n{hole.place.line}\n{hole.prefix}{hole.gold}{hole.suffix}"
    return xxhash.xxh3_128_hexdigest(text.encode())


def _verdict(judgement: Judgement | None) -> dict[str, Any]:
    if judgement is None:
        return {}
    return {
        "build_pass": int(judgement.passes), "compiles": int(judgement.compiles),
        "reason": judgement.reason,
    }  # fmt: skip
