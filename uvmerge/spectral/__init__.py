"""Shared linear algebra of the operations: leading factors, spectra, and the precision policy.

Knows nothing of files. What is imported here does not import torch; the other modules do.
"""

from .log import Log
from .operand import Edited, Factors, Matrix, Operand, Term
from .rank import leading_count

__all__ = ["Edited", "Factors", "Log", "Matrix", "Operand", "Term", "leading_count"]
