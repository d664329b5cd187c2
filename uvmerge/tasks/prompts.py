"""What a model is asked about a hand of cards, and what the verifier says of its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from .cards import Verdict
from .hands import Hand
from .solver import TARGET

STOP = "[Input]"
"""A model that goes on with a question of its own is stopped here."""

_FACES = {
    "id": "J, Q and K each count as 10",
    "ood": "J counts as 11, Q as 12 and K as 13",
}
_TASK = f"""[Task]
You play the 24 game. You are given four cards. Write a formula that equals {TARGET}, with the numbers of \
all four cards, each used exactly once, the operators +, -, *, / and brackets.
A counts as 1, a number card as its number; {{faces}}.
Answer with one JSON object that has three keys: "cards", the list of the cards; "number", the list of \
their numbers; "formula", the formula as a string.

[Input]
Cards: {{cards}}

[Output]
"""


def prompt(hand: Hand) -> str:
    """The question about a hand; it ends where the answer begins."""
    return _TASK.format(faces=_FACES[hand.rule], cards=json.dumps(hand.cards))


def right_answer(hand: Hand) -> str:
    """An answer with the solution of the hand, in the form that is asked for."""
    return json.dumps({"cards": hand.cards, "number": hand.values, "formula": hand.solution})


def document(hand: Hand) -> dict[str, Any]:
    """A hand as a row of the dataset that the harness asks."""
    return {
        "rule": hand.rule, "cards": list(hand.cards), "values": list(hand.values),
        "unordered": hand.unordered, "prompt": prompt(hand), "target": right_answer(hand),
    }  # fmt: skip


def hashes(hand: Hand) -> dict[str, str]:
    """`doc_hash` and `prompt_hash` of a hand, as lm-evaluation-harness writes them in its samples."""
    doc = json.dumps(document(hand), indent=2, ensure_ascii=False)
    return {"doc_hash": _sha256(doc), "prompt_hash": _sha256(prompt(hand))}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def feedback(verdict: Verdict, hand: Hand) -> str:
    """The sentence of the verifier on a wrong answer, which opens the next attempt."""
    numbers = ", ".join(map(str, hand.values))
    said = {
        "format": 'your answer holds no JSON object with a "formula" string',
        "illegal": "your formula holds characters other than digits, + - * / and brackets",
        "syntax": "your formula cannot be read",
        "cards": f"your formula does not use each of the numbers {numbers} exactly once",
        "zero-division": "your formula divides by zero",
        "value": f"your formula equals {verdict.value}, not {TARGET}",
    }[verdict.reason]
    return f"This is wrong: {said}. Try again, and answer with one JSON object."


def chat(hand: Hand, wrong: Sequence[tuple[str, Verdict]]) -> list[dict[str, str]]:
    """The messages that ask for the next attempt at a hand.

    Args:
        wrong: the answers so far, and what the judge says of them.
    """
    messages = [{"role": "user", "content": prompt(hand)}]
    for answer, verdict in wrong:
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": f"{feedback(verdict, hand)}\n\n[Output]\n"})
    return messages
