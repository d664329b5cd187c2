"""The colours of every drawing, on the page and for a paper: dark is much, light is little."""

from __future__ import annotations

from collections.abc import Sequence

# Cividis (Nuñez, Anderton and Renslow 2018), light for little and dark for much.
SEQUENTIAL = ("#FEE838", "#E1CC55", "#C3B369", "#A59C74", "#8A8678", "#707173",
              "#575D6D", "#3B496C", "#123570", "#00224E")  # fmt: skip
# Less than expected is blue, more is orange.
DIVERGING = ("#00456B", "#0072B2", "#8CBEDB", "#F7F7F7", "#EFB188", "#D55E00", "#7F3800")
# Of lines: Okabe and Ito 2008, told apart by people who see red and green as one.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def mixed(ramp: Sequence[str], share: float) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) at `share` (0 to 1) along a ramp of `#rrggbb` stops."""
    place = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
    at = min(int(place), len(ramp) - 2)
    ends = [[int(ramp[at + i][j : j + 2], 16) for j in (1, 3, 5)] for i in (0, 1)]
    red, green, blue = (round(a + (b - a) * (place - at)) for a, b in zip(*ends))
    return red, green, blue
