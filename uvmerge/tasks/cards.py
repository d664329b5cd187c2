"""The card game: make 24 from four cards, with + − × ÷ and brackets, each card used once.

The game is GeneralPoints of arXiv 2501.17161, with which arXiv 2508.16546 and 2509.12235 measure. A
formula is parsed and computed in rationals; it is never evaluated as code. The judge published with the
game computes in floats and takes a space as a foreign character: it rejects `8/(3-8/3)` for the hand
3, 3, 8, 8, whose only solution this is. What it would say is reported beside the exact verdict.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar

from .solver import TARGET, solve

__all__ = ["LIMIT_CHARACTERS", "LIMIT_DEPTH", "Verdict", "judge", "judge_answer", "solve"]

Reason = Literal["ok", "format", "illegal", "syntax", "cards", "zero-division", "value"]
_Number = TypeVar("_Number", Fraction, float)

LIMIT_CHARACTERS = 1000  # of a formula
LIMIT_DEPTH = 50  # of brackets
_LIMIT_DIGITS = 9  # of a number
_LIMIT_ANSWER, _LIMIT_OBJECTS = (
    65_536,
    64,
)  # characters at the end of an answer, objects tried in it

_SPELLED = str.maketrans({"×": "*", "÷": "/", "−": "-"})
_FOREIGN = re.compile(r"[^0-9+\-*/()\s]")
_PUBLISHED = re.compile(r"[0-9+\-*/()]*")
_TOKEN = re.compile(r"[0-9]+|[+\-*/()]")
_NEGATE = "negate"
_BINDS = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2, _NEGATE: 3}


@dataclass(frozen=True)
class Verdict:
    """What the judge says of a formula or of an answer.

    Attributes:
        reason: `ok`; `format`, the answer holds no formula; `illegal`, a foreign character; `syntax`, no
            formula, or one that is too long or too deep; `cards`, other numbers than those of the hand;
            `zero-division`; or `value`, another number than 24.
        published: whether the published judge accepts the formula.
        value: what the formula makes, where it can be computed.
    """

    reason: Reason
    published: bool = False
    value: Fraction | None = None

    @property
    def ok(self) -> bool:
        """Whether the formula solves the hand."""
        return self.reason == "ok"


def judge(formula: str, values: Sequence[int]) -> Verdict:
    """Judge the text before the first `=` of a formula.

    Spaces, `×`, `÷` and `−` are taken for what they mean, and a number may have a minus sign.

    Args:
        values: what the cards of the hand count.
    """
    text = formula[: LIMIT_CHARACTERS + 1].partition("=")[0]
    spelled = text.translate(_SPELLED)
    if _FOREIGN.search(spelled):
        return Verdict("illegal")
    tokens = _TOKEN.findall(spelled)
    postfix = _postfix(tokens) if len(text) <= LIMIT_CHARACTERS else None
    if postfix is None:
        return Verdict("syntax")
    if Counter(int(token) for token in tokens if token.isdigit()) != Counter(values):
        return Verdict("cards")
    try:
        value = _computed(postfix, Fraction)
    except ZeroDivisionError:
        return Verdict("zero-division")
    published = _PUBLISHED.fullmatch(text) is not None and _makes_target_in_floats(postfix)
    return Verdict("ok" if value == TARGET else "value", published, value)


def judge_answer(text: str, values: Sequence[int]) -> Verdict:
    """Judge a model's answer: the `formula` of the last JSON object in it that has one.

    Args:
        values: what the cards of the hand count.
    """
    formula = next(_formulas(text[-_LIMIT_ANSWER:]), None)
    return Verdict("format") if formula is None else judge(formula, values)


def _formulas(text: str) -> Iterator[str]:
    """The formulas of the JSON objects in a text, from its end to its start."""
    decoder, end = json.JSONDecoder(), len(text)
    for _ in range(_LIMIT_OBJECTS):
        end = text.rfind("{", 0, end)
        if end < 0:
            return
        try:
            found: Any = decoder.raw_decode(text, end)[0]
        except (ValueError, RecursionError):
            continue
        if isinstance(found.get("formula"), str):
            yield found["formula"]


def _postfix(tokens: Sequence[str]) -> list[str] | None:
    """The tokens with each operator after its operands; None where they are no formula.

    This is Dijkstra's shunting-yard algorithm, which needs no recursion.
    """
    postfix: list[str] = []
    waiting: list[str] = []
    wants_operand, depth = True, 0
    for token in tokens:
        if wants_operand != (token.isdigit() or token == "(" or (token == "-" and wants_operand)):
            return None
        if token.isdigit():
            if len(token) > _LIMIT_DIGITS or (token[0] == "0" and token != "0"):
                return None
            postfix.append(token)
            wants_operand = False
        elif wants_operand:
            waiting.append(_NEGATE if token == "-" else token)
            depth += token == "("
        elif token == ")":
            if depth == 0:
                return None
            depth -= 1
            postfix += _released(waiting, "(")
            waiting.pop()
        else:
            postfix += _released(waiting, token)
            waiting.append(token)
            wants_operand = True
        if depth > LIMIT_DEPTH:
            return None
    return None if wants_operand or depth else [*postfix, *reversed(waiting)]


def _released(waiting: list[str], token: str) -> Iterator[str]:
    """Take the operators off `waiting` whose operands are complete before `token`."""
    while waiting and waiting[-1] != "(" and _BINDS[waiting[-1]] >= _BINDS[token]:
        yield waiting.pop()


def _computed(postfix: Sequence[str], number: type[_Number]) -> _Number:
    """What a formula makes, in the arithmetic of `number`."""
    stack: list[_Number] = []
    for token in postfix:
        if token.isdigit():
            stack.append(number(int(token)))
            continue
        b = stack.pop()
        if token == _NEGATE:
            stack.append(-b)
            continue
        a = stack.pop()
        stack.append(
            a + b if token == "+" else a - b if token == "-" else a * b if token == "*" else a / b
        )
    return stack[0]


def _makes_target_in_floats(postfix: Sequence[str]) -> bool:
    """Whether a formula makes the target also where every step is rounded to a float."""
    try:
        return _computed(postfix, float) == TARGET
    except ZeroDivisionError:  # a difference that rounding has made 0
        return False
