"""Shared linear algebra of the operations: leading factors, spectra, and the precision policy.

These modules know nothing of files. The names imported here come without torch; the other modules
import it.
"""

from .draw import Draw
from .log import Log
from .operand import Edited, Factors, Matrix, Operand, Term, Whole
from .rank import leading_count

__all__ = [
    "Draw",
    "Edited",
    "Factors",
    "Log",
    "Matrix",
    "Operand",
    "Term",
    "Whole",
    "leading_count",
]
