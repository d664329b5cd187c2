"""Results of chains on matrices, each computed with as much care as the size of its edit asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..spectral import Log
from ..spectral.care import care_needed
from ..spectral.matrix import DenseMatrix
from ..spectral.precision import EXACT, Precision
from ..spectral.recombine import Sum
from .chain import Chain, Equality
from .record import decomposition_entry

if TYPE_CHECKING:
    from .reading import Reader


class Decomposed:
    """The matrices of one block, which all its chains share while they last."""

    def __init__(
        self,
        reader: Reader,
        chains: Sequence[Chain],
        stored: Mapping[str, Tensor],
        are_equal: Equality,
        device: str,
    ) -> None:
        self.reader, self.stored, self.are_equal, self.device = reader, stored, are_equal, device
        self.block = chains[0].block
        self.views = {role: view for chain in chains for role, view in chain.block.operands}
        self.log = Log()
        self._matrices: dict[str, dict[str, DenseMatrix]] = {}  # by policy and role

    def result(self, chain: Chain, precision: Precision) -> tuple[Sum, Precision]:
        """The result of a chain, and the policy under which it was computed."""
        self.log.wholly = precision.combine != torch.float32
        result = self._computed(chain, precision)
        own = self.under(precision)[self.block.own].sum
        if not self.log.wholly:
            care = care_needed(self.log, result, own)
            if care == "exactly":
                precision = EXACT
                chain.entry["precision"] = EXACT.name
            if care != "enough":
                self.log.wholly = True
                result = self._computed(chain, precision)
        several = len(chain.plan.recipe.steps) > 1
        chain.entry.update(decomposition_entry(self.log, chain.block.chain, several))
        return result, precision

    def keep(self) -> None:
        """Put the eigenpairs of all matrices on their shelves."""
        for matrices in self._matrices.values():
            for matrix in matrices.values():
                matrix.keep()

    def _computed(self, chain: Chain, precision: Precision) -> Sum:
        matrices = self.under(precision)
        self.log.begin()
        own = matrices[self.block.own]
        found: DenseMatrix = chain.result(matrices, self.are_equal, own.with_values, self.log)
        return found.sum

    def under(self, precision: Precision) -> dict[str, DenseMatrix]:
        """The matrices by role, under a policy."""
        if precision.name not in self._matrices:
            self._matrices[precision.name] = {
                role: self.reader.matrix(
                    view.label if role == self.block.own else f"{view.label} ({role})",
                    self.stored[role], self.device, precision, self.log, role,
                )
                for role, view in self.views.items()
            }  # fmt: skip
        return self._matrices[precision.name]
