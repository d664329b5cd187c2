"""Every way to make a number from a hand of cards.

A hand is split into two parts, each way once; what both parts can make is joined by each operation.
Parts of up to three cards are the same in many hands, so what they make is kept. The last join is looked
up backwards: one part gives what the other has to make.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache

TARGET = 24
HAND_SIZE = 4

_Hand = tuple[int, ...]
_SUM, _PRODUCT, _CARD = range(3)  # what binds least comes first
_Formula = tuple[int, str]  # how tightly it binds, and its text


def solve(values: Sequence[int]) -> list[str]:
    """Every formula that makes 24 from the values, each used once; sorted, the shortest first.

    Two formulas differ if they differ by more than the order of two summands or of two factors:
    `3+5` and `5+3` are one formula, `(1+2)+3` and `1+(2+3)` are two. Arithmetic is in rationals.

    Args:
        values: what the cards count, one to four whole numbers from 0 to 99.

    Raises:
        ValueError: there are other values, or more.
    """
    hand = tuple(sorted(values))
    if not 1 <= len(hand) <= HAND_SIZE or not all(type(v) is int and 0 <= v < 100 for v in hand):
        raise ValueError(f"a hand has one to {HAND_SIZE} whole numbers from 0 to 99, got {values}")
    found = {text for _, text in _makes(hand, Fraction(TARGET))}
    return sorted(found, key=lambda text: (len(text), text))


def _makes(hand: _Hand, target: Fraction) -> Iterator[_Formula]:
    """The formulas of a whole hand that make `target`."""
    if len(hand) == 1:
        yield from _made(hand).get(target, ())
    for left, right in _splits(hand):
        others = _made(right)
        for a, formulas in _made(left).items():
            for operator, turned, b in _needed(a, target):
                if b in others:
                    yield from _joined(operator, turned, formulas, others[b])


@cache
def _made(hand: _Hand) -> dict[Fraction, frozenset[_Formula]]:
    """Every value that a part of a hand can make, and the formulas that make it."""
    if len(hand) == 1:
        return {Fraction(hand[0]): frozenset({(_CARD, str(hand[0]))})}
    found: dict[Fraction, set[_Formula]] = defaultdict(set)
    for left, right in _splits(hand):
        for a, ours in _made(left).items():
            for b, theirs in _made(right).items():
                for operator, turned, value in _values(a, b):
                    found[value].update(_joined(operator, turned, ours, theirs))
    return {value: frozenset(formulas) for value, formulas in found.items()}


def _splits(hand: _Hand) -> set[tuple[_Hand, _Hand]]:
    """Each way to split a sorted hand into two parts, the smaller part first."""
    found = set()
    for chosen in range(1, 2 ** len(hand) - 1):
        part = tuple(card for place, card in enumerate(hand) if chosen >> place & 1)
        rest = tuple(card for place, card in enumerate(hand) if not chosen >> place & 1)
        if (len(part), part) <= (len(rest), rest):
            found.add((part, rest))
    return found


def _values(a: Fraction, b: Fraction) -> Iterator[tuple[str, bool, Fraction]]:
    """What a and b make: the operator, whether b stands before it, and the value."""
    yield "+", False, a + b
    yield "*", False, a * b
    yield "-", False, a - b
    yield "-", True, b - a
    if b:
        yield "/", False, a / b
    if a:
        yield "/", True, b / a


def _needed(a: Fraction, target: Fraction) -> Iterator[tuple[str, bool, Fraction]]:
    """The b with which a makes a target other than 0: the operator, whether b stands before it, and b."""
    yield "+", False, target - a
    yield "-", False, a - target
    yield "-", True, a + target
    if a:
        yield "*", False, target / a
        yield "/", False, a / target
        yield "/", True, a * target


def _joined(
    operator: str, turned: bool, ours: frozenset[_Formula], theirs: frozenset[_Formula]
) -> Iterator[_Formula]:
    """Formulas of two parts joined by an operator."""
    binds = _SUM if operator in "+-" else _PRODUCT
    for one in ours:
        for other in theirs:
            left, right = (other, one) if turned else (one, other)
            if operator in "+*" and right < left:
                left, right = right, left
            before = f"({left[1]})" if left[0] < binds else left[1]
            after = f"({right[1]})" if right[0] <= binds else right[1]
            yield binds, f"{before}{operator}{after}"
