"""An edit that is written as a PEFT adapter: what is asked for, and where the factors of a matrix go.

How many columns the factors of a matrix need is known only when they are there. So they are first
written to `FACTORS`, a file of the staging folder with room for the most that each may need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..checkpoint import header
from ..checkpoint.adapter import PREFIX

FACTORS = "factors.bin"  # in the staging folder, beside the folder that becomes OUT
LEAST_ERROR = 1e-6  # relative error that counts as none: what is promised of an edit itself


@dataclass(frozen=True)
class Emission:
    """How an edit is written as an adapter.

    Attributes:
        against: role of the checkpoint that the adapter is for.
        rank: the largest rank of a matrix; None where nothing but the room decides.
        error: the largest relative Frobenius error of a tensor.
        selected_only: whether tensors that no step of the recipe selects get no factors.
        dtype: how the factors are stored, as safetensors spells it.
        lossy: whether an edit that does not fit is written all the same.
    """

    against: str
    rank: int | None
    error: float
    selected_only: bool = False
    dtype: str = "F32"
    lossy: bool = field(default=False, compare=False)

    def as_data(self) -> dict[str, Any]:
        """What decides the bytes of the output, as data that JSON can hold."""
        named = {"against": self.against, "rank": self.rank, "error": self.error}
        return named | {"selected_only": self.selected_only, "dtype": self.dtype}

    @property
    def options(self) -> tuple[str, ...]:
        """The options of a command that writes such an adapter."""
        rank = () if self.rank is None else ("--adapter-rank", str(self.rank))
        error = ("--adapter-error", f"{self.error:g}")
        lossy = ("--lossy",) if self.lossy else ()
        return ("--emit", "adapter", "--adapter-for", self.against, *rank, *error, *lossy)

    def most(self, m: int, n: int) -> int:
        """The largest rank of the factors of a matrix (m, n).

        It is never so large that the factors would take more room than the matrix.
        """
        pays = max(1, m * n // (m + n))
        return min(m, n, pays, pays if self.rank is None else self.rank)

    def holds(self, error: float) -> bool:
        """Whether a relative error is small enough."""
        return error <= max(self.error, LEAST_ERROR)


@dataclass(frozen=True, slots=True)
class Target:
    """A module of the model whose weight gets factors B (m, k) and A (k, n).

    Attributes:
        module: path of the module, as its weight is named in the checkpoint.
        is_embedding: whether the module is a table (n, m) of embeddings, which PEFT stores otherwise.
        shape: (m, n).
        most: the largest k.
        transposed: whether the checkpoint stores the weight (in, out), as Conv1D does.
    """

    module: str
    is_embedding: bool
    shape: tuple[int, int]
    most: int
    transposed: bool

    def tensors(self, k: int) -> tuple[tuple[str, tuple[int, int]], tuple[str, tuple[int, int]]]:
        """(name, shape) of A and of B at rank k, as PEFT stores them."""
        m, n = self.shape
        infix, ending = ("embedding_", "") if self.is_embedding else ("", ".weight")
        stem = f"{PREFIX}{self.module}.lora_{infix}"
        return (f"{stem}A{ending}", (k, n)), (f"{stem}B{ending}", (m, k))

    def size_bytes(self, k: int, dtype: str) -> int:
        """Bytes of both factors at rank k."""
        return sum(header.size_bytes(dtype, shape) for _, shape in self.tensors(k))
