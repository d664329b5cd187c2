"""The colours of every drawing, on the page and for a paper: dark is much, light is little."""

from __future__ import annotations

from collections.abc import Sequence

# Of values: cividis (Nuñez, Anderton and Renslow 2018), light for little and dark for much.
SEQUENTIAL = ("#FEE838", "#E1CC55", "#C3B369", "#A59C74", "#8A8678", "#707173",
              "#575D6D", "#3B496C", "#123570", "#00224E")  # fmt: skip
# Of values of which much is good: greens, light for little and dark for much as well.
GOOD = ("#E5F5E0", "#C7E9C0", "#A1D99B", "#74C476", "#41AB5D", "#238B45", "#006D2C", "#00441B")
# Of lines: Okabe and Ito 2008, which people with red-green colour blindness can distinguish.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def mixed(ramp: Sequence[str], share: float) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) at `share` (0 to 1) along a ramp of `#rrggbb` stops."""
    place = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
    at = min(int(place), len(ramp) - 2)
    ends = [[int(ramp[at + i][j : j + 2], 16) for j in (1, 3, 5)] for i in (0, 1)]
    red, green, blue = (round(a + (b - a) * (place - at)) for a, b in zip(*ends))
    return red, green, blue
