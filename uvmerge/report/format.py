"""Numbers, their units and names as people read them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..text import safe as safe

NONE = "–"  # for a number that does not exist


def number(value: float | None, digits: int = 3) -> str:
    """`value` to `digits` significant digits: `0.0123`, `1.2e−5`, `12,300`; `–` for None."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1e7:
        shown = f"{value:.{digits - 1}e}"
    elif abs(value) >= 10**digits - 0.5:
        shown = f"{value:,.0f}"
    else:
        shown = f"{value:.{digits}g}"
    return shown.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-").replace("-", "−")


def percent(share: float | None, digits: int = 3) -> str:
    """A share of 1 in percent."""
    return NONE if share is None else f"{number(100 * share, digits)} %"


@dataclass(frozen=True)
class Unit:
    """How a number of the findings is drawn and written for people.

    Attributes:
        label: the name of the unit at an axis.
        factor: `drawn` multiplies a number by it.
        sign: is written behind a number.
        in_percent: whether texts give a number in percent; drawings have no room for that.
        digits: how many significant digits texts have.
    """

    label: str = ""
    factor: float = 1.0
    sign: str = ""
    in_percent: bool = False
    digits: int = 3

    def drawn(self, value: float) -> float:
        """The number as a drawing has it."""
        return value * self.factor

    def brief(self, value: float | None, digits: int = 3) -> str:
        """The number as a drawing writes it: `3.38°`, `0.0512`."""
        shown = number(None if value is None else self.drawn(value), digits)
        return shown if shown == NONE else shown + self.sign

    def text(self, value: float | None) -> str:
        """The number as a sentence or a table writes it: `3.38°`, `5.12 %`."""
        if self.in_percent and value is not None and not math.isnan(value):
            return percent(value, self.digits)
        return self.brief(value, self.digits)


PLAIN = Unit()
SHARE = Unit("share", in_percent=True)
COSINE = Unit("cosine", digits=6)
DEGREES = Unit("degrees", 180 / math.pi, "°")  # of a number in radians
