"""Shared linear algebra of the operations: leading factors, spectra, and the precision policy.

Knows nothing of files. This package itself does not import torch; `spectral.dense` does.
"""

from .operand import Edited, Factors, Matrix, Operand, Term
from .rank import leading_count

__all__ = ["Edited", "Factors", "Matrix", "Operand", "Term", "leading_count"]
