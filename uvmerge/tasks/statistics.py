"""Statistics of answers that are right or wrong."""

from __future__ import annotations

import math


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a proportion.

    With n = total and p = right / n the bounds are:

        (p + z^2 / (2 n) -+ z sqrt(p (1 - p) / n + z^2 / (4 n^2))) / (1 + z^2 / n)

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    Journal of the American Statistical Association 22 (158), 1927, pages 209-212.

    Args:
        right: successes.
        total: trials, at least 1.
        z: the normal quantile; 1.96 gives a 95 % interval.

    Raises:
        ValueError: `total` is under 1, or `right` is not between 0 and `total`.
    """
    if total < 1 or not 0 <= right <= total:
        raise ValueError(f"need 0 <= right <= total and total >= 1, got {right} of {total}")
    share = right / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
