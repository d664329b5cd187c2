"""From answers to the rows of an evaluation: cut, judged, compared with the code that was there."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import xxhash

from .benchmark import TASK, Task
from .judge import Bench, Candidates, Judgement, available, bench, judge
from .metrics import NO_CODEBLEU, has_codebleu, similarities
from .postprocess import cut, fits
from .sandbox import Java
from .task import Hole

_LONGEST = 32_000
"""Characters of an answer that are read."""

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
    codes = [code_of(answer, task.hole) for task, answer in told]
    judged: Sequence[Judgement | None] = [None] * len(told)
    if tools is not None:
        candidates = [(task.hole, code) for (task, _), code in zip(told, codes)]
        judged = judged_inside(candidates, lambda inside: judge(inside, tools))
    return [
        {
            "task": TASK, "doc_id": task.doc_id, "id": task.hole.id, "doc_hash": doc_hash(task.hole),
            "domain": task.hole.domain, "family": task.family, "needs": list(task.hole.needs),
            **_verdict(verdict), **similarities(code, task.hole.gold), "code": code,
        }
        for (task, _), code, verdict in zip(told, codes, judged)
    ]  # fmt: skip


def code_of(answer: str, hole: Hole) -> str:
    """The code of an answer, without characters that cannot be stored."""
    plain = answer[:_LONGEST].encode("utf-8", "replace").decode()
    return cut(plain, hole.prefix, hole.suffix)


def judged_inside(
    candidates: Sequence[tuple[Hole, str]], judge: Callable[[Candidates], list[Judgement]]
) -> list[Judgement]:
    """What the judge says of each code; code that reaches out of its hole fails without it."""
    inside = [fits(code, hole.prefix, hole.suffix) for hole, code in candidates]
    found = iter(judge([each for each, within in zip(candidates, inside) if within]))
    return [next(found) if within else _OUTSIDE for within in inside]


def score(task: Task, answer: str) -> dict[str, float]:
    """The metrics of one answer; `build_pass` only where answers can be tested.

    The compiler that the first call starts is kept until Python ends.
    """
    code = code_of(answer, task.hole)
    found, standing = similarities(code, task.hole.gold), _standing()
    if standing is None:
        return found
    verdict = judged_inside([(task.hole, code)], standing.judge)[0]
    return {"build_pass": int(verdict.passes), "compiles": int(verdict.compiles), **found}


@cache
def _standing() -> Bench | None:
    """A bench for answers that come one by one; None where they cannot be tested."""
    tools = available()
    if isinstance(tools, str):
        logging.getLogger(__name__).warning("build_pass is left out: %s", tools)
        return None
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(bench(*tools))


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
