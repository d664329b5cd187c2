"""Random numbers of merges, which depend on what they are drawn for and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import Philox
    from torch import Tensor

_PIECE = 1 << 20  # numbers drawn at once


@dataclass(frozen=True)
class Draw:
    """Draws uniform numbers for one tensor: the same ones on every machine and device, with any number
    of workers, in any order of tensors, and after a resume.

    The numbers come from Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
    2, 3"). Its key is the first 128 bits of a SHA-256 of seed, label and model; its counter is the
    place of a number in the tensor, four numbers to a count.

    Attributes:
        seed: the option of the operation.
        label: name of the tensor in the output.
        device: where the numbers are put; the numbers are the same on each.
    """

    seed: int
    label: str
    device: str = "cpu"

    def __call__(self, model: int, shape: Sequence[int]) -> Tensor:
        """Numbers in [0, 1) of `shape` in float64, multiples of 2^-53, in row-major order.

        Args:
            model: place of the model among `*models`, from 0 on.
        """
        import torch

        numbers = torch.empty(tuple(shape), dtype=torch.float64)
        philox = self._philox(model)
        for piece in numbers.view(-1).split(_PIECE):
            raw = philox.random_raw(len(piece))
            raw >>= 11
            piece.copy_(torch.from_numpy(raw.view("int64"))).mul_(2.0**-53)
        return numbers.to(self.device)

    def _philox(self, model: int) -> Philox:
        from numpy.random import Philox

        words = f"{self.seed}\n{model}\n{self.label}".encode()
        key = int.from_bytes(hashlib.sha256(words).digest()[:16], "little")
        return Philox(key=key, counter=2**256 - 1)  # numpy counts up before the first number
