"""Numbers and names as the page and the sentences show them. Pure."""

from __future__ import annotations

import html
import math

from ..text import brief


def safe(text: object, most: int = 200) -> str:
    """Text from outside, fit for HTML content and for a quoted attribute: inert, cut, escaped."""
    return html.escape(brief(text, most), quote=True)


def number(value: float | None, digits: int = 3) -> str:
    """`value` to that many significant digits, short: `0.0123`, `1.2e-5`, `12,300`, `–` for none."""
    if value is None or math.isnan(value):
        return "–"
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
    return "–" if share is None else f"{number(100 * share, digits)} %"
