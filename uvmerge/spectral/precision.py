"""The precision policy, in one place.

`exact` (the default, on every device): all products in float64, singular vectors to 1e-11.
`fast`: Gram matrices multiplied in float32 and summed in float64, reduced in float32; the leading
vectors are corrected from the matrix itself. The longer side's singular vectors and the recombination
are in float32. float64 values so large or small that float32 cannot hold them, and edits too small for
it, are computed as in `exact`.

TF32 is never used.

Accuracy is meant relative to the edit, ‖W′ − W′₆₄‖_F / ‖W′₆₄ − W_f‖_F with W′₆₄ from a float64
SVD: at most 1e-6 in `exact`, before the one rounding to the stored dtype, and 1e-3 in `fast` for an
edit of at least 1e-3 of its matrix (1e-6 ‖W‖ for a smaller one: float32 has no more to give).

Each rung of the ladder checks its result; where the result is not accurate enough, the next rung
takes over:

    corrected    (`fast`) reduction to tridiagonal form in float32, vectors corrected from W
    tridiagonal  reduction to tridiagonal form in float64
    refined      up to two fifths of the triplets, from float32 eigenvectors; where nothing is reduced:
                 without scipy, for small matrices, and on a GPU that is slow in float64
    gram         float64 Gram matrix and eigenproblem
    svd          float64 singular value decomposition, of the transpose as a last try

On the CPU one thread computes one matrix, and several threads work at once. The last bits of
LAPACK's results depend on how many threads LAPACK uses; here LAPACK always uses one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .magnitude import FLOAT32_RANGE, largest

# Smallest σ/σ_1 that is read off a float64 Gram matrix, where its error is about 1e-11 σ_1.
SMALLEST_VALUE = 1e-6
# The promise of `fast`, relative to the edit; and what float32 may leave, relative to ‖W‖_F (0.7e-6 to
# 1.3e-6 measured from 1024² to 2048²), which decides when an edit is too small for it.
FAST_ERROR, FAST_FLOOR = 1e-3, 1.5e-6
# Largest ‖W − U S Vh‖_F / ‖W‖_F, and |UᵀU − 1|, accepted from a full SVD.
RESIDUAL = 1e-9


@dataclass(frozen=True)
class Precision:
    """The dtypes in which one policy computes, and the errors that it accepts.

    Attributes:
        multiply: dtype of the products in a Gram matrix whose eigenvectors are refined.
        combine: dtype of the longer side's singular vectors, and of the recombination.
        smallest_reduced: the smallest r for which a matrix is reduced to tridiagonal form; for a
            smaller one a float64 eigenproblem is as fast.
        smallest_refined: the smallest r for which refining is tried; for a smaller one a float64
            eigenproblem is as fast as two steps of refinement (`exact`) or one (`fast`).
        residual: largest ‖G v_i − θ_i v_i‖ / θ_i of a refined eigenpair.
        orthogonality: largest |uᵢᵀuⱼ − δᵢⱼ| of the longer side's vectors that is accepted from a
            Gram matrix. Errors of the Gram matrix show there, divided by σᵢσⱼ: 1e-10 in float64
            admits σ_k/σ_1 down to about 1e-3.
    """

    name: str
    multiply: torch.dtype
    combine: torch.dtype
    smallest_refined: int
    residual: float
    orthogonality: float
    smallest_reduced: int = 256

    def holding(self, stored: Iterable[torch.Tensor]) -> Precision:
        """This policy, or `EXACT` where float32, in which this one computes, cannot hold the values.

        Args:
            stored: operands of one edit, or matrices that are compared, in their stored dtypes.
        """
        if self.combine == torch.float64:
            return self
        low, high = FLOAT32_RANGE
        sizes = [largest(values) for values in stored if values.dtype == torch.float64]
        return self if all(size == 0 or low < size < high for size in sizes) else EXACT


EXACT = Precision("exact", torch.float64, torch.float64, 1024, residual=1e-11, orthogonality=1e-10)
FAST = Precision(
    "fast", torch.float32, torch.float32, 256,
    residual=1e-7, orthogonality=1e-5, smallest_reduced=512,
)  # fmt: skip
POLICIES = {policy.name: policy for policy in (EXACT, FAST)}


@contextmanager
def single_threaded() -> Iterator[None]:
    """One CPU thread for torch and no TF32 inside the block; afterwards the caller's settings return."""
    threads = torch.get_num_threads()
    matmul = torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(matmul)
