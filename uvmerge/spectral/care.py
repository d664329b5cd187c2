"""How carefully an edit has to be computed under the policy `fast`, from its size.

An edit is computed first with the vectors next to the cut corrected (`reduced.CorrectedRung`). Where
what that leaves may exceed a quarter of 1e-3 of the edit, all vectors are corrected; where the edit is
so small that float32 itself may exceed 1e-3 of it, it is computed under `exact`. This depends on the
matrices, the operation and the policy alone, not on what else is computed.
"""

from __future__ import annotations

from typing import Literal

import torch

from .log import Log
from .precision import FAST_ERROR, FAST_FLOOR
from .recombine import Sum, size_of_change

Care = Literal["enough", "wholly", "exactly"]


def care_needed(log: Log, result: Sum, own: Sum) -> Care:
    """What an edit needs that was computed with `log.wholly` false.

    Args:
        log: of the matrices, since the edit began.
        result, own: the matrix after the edit, and before.
    """
    corrected = [found for found in log.decompositions if found.method == "corrected"]
    if not corrected:
        return "enough"
    edit = size_of_change(result, own)
    if FAST_FLOOR * float(torch.linalg.vector_norm(own.stored.float())) > FAST_ERROR * edit:
        return "exactly"
    missed = sum(found.missed**2 for found in corrected) ** 0.5
    return "wholly" if missed > FAST_ERROR / 4 * edit else "enough"
