"""The precision policy, in one place.

`exact` (the default, on every device): everything in float64.
`fast`: what decides accuracy stays in float64 (Gram matrix, eigenvectors, the singular vectors of
the other side); the factors are then kept, and recombined, in float32, which halves the memory of
an edit. TF32 is never used.

Accuracy is meant relative to the edit, ‖W′ − W′₆₄‖_F / ‖W′₆₄ − W_f‖_F with W′₆₄ from a float64 SVD:
at most 1e-6 in `exact`, before the one rounding to the stored dtype. `fast` adds up to 5e-7 ‖W‖, which
no float32 arithmetic avoids: 1e-3 of an edit that is 1e-3 of its matrix, more of a smaller one.

On the CPU each matrix is computed by one thread, and several matrices at once. LAPACK's results
depend on its number of threads in the last bits; this way the output does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

# Largest |VᵀV − 1| accepted from the Gram matrix before a full SVD takes over. The Gram matrix
# squares the condition number: this admits σ_k/σ_1 down to about 1e-3.
ORTHOGONALITY = 1e-10
# Smallest σ/σ_1 that is read off the Gram matrix, where its error is about 1e-11 σ_1.
SMALLEST_VALUE = 1e-6
# Largest ‖W − U S Vh‖_F / ‖W‖_F, and |UᵀU − 1|, accepted from a full SVD.
RESIDUAL = 1e-9


@dataclass(frozen=True)
class Precision:
    """dtypes of one policy: `decompose` for Gram matrices and SVDs, `combine` for all the rest."""

    name: str
    decompose: torch.dtype
    combine: torch.dtype


EXACT = Precision("exact", torch.float64, torch.float64)
FAST = Precision("fast", torch.float64, torch.float32)
POLICIES = {policy.name: policy for policy in (EXACT, FAST)}


@contextmanager
def single_threaded() -> Iterator[None]:
    """One CPU thread per matrix and no TF32 inside; the caller's settings come back after."""
    threads = torch.get_num_threads()
    matmul = torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(matmul)
