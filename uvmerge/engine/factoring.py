"""The factors B A of an edit, for an output that is an adapter, and how much of the edit they hold.

An operation that returns its operand plus terms of low rank gives the factors away: the terms are
brought to singular value form in their own small space. Any other edit is a dense difference of two
matrices, which decomposes itself as matrices do. The singular values are split evenly between B and A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from ..checkpoint.roles import BASE, FINETUNED
from ..errors import RunFailed
from ..plan.emission import Emission, Target
from ..plan.steps import Step
from ..spectral.magnitude import norm
from ..spectral.matrix import DenseMatrix
from ..spectral.operand import Term
from ..spectral.precision import Precision
from ..spectral.rank import energy_count
from ..spectral.recombine import Sum
from ..spectral.svd import checked_svd
from .chain import Chain, equality_of
from .decomposed import Decomposed
from .reading import TORCH_DTYPES, all_finite, as_bytes, refuse_nonfinite
from .rounding import round_once

if TYPE_CHECKING:
    from .compute import Editor, Product, Request

PANEL_BYTES = 8 << 20
# Twice the relative error of a product of two factors that are rounded to a dtype.
_ROUNDING = {"F64": 1e-15, "F32": 2e-7, "F16": 2e-3, "BF16": 1.2e-2}
Triplets: TypeAlias = tuple[Tensor, Tensor, Tensor]  # U (m, k), S (k,), Vh (k, n)


class Factoring:
    """Turns the steps of one tensor under several plans into the bytes of its factors."""

    def __init__(self, editor: Editor, requests: Sequence[Request], device: str) -> None:
        self.editor, self.requests, self.device = editor, requests, device

    def products(self) -> list[Product]:
        """Per request, A and B one after the other, and the records of the tensor's matrices."""
        pieces: list[list[Tensor]] = [[] for _ in self.requests]
        records: list[dict[str, Any]] = [{} for _ in self.requests]
        for number, block in enumerate(self.requests[0][1].blocks):
            for i, (factors, entry) in enumerate(self._block(number)):
                pieces[i] += factors
                records[i][block.view.label] = entry
        return [(map(as_bytes, each), record) for each, record in zip(pieces, records)]

    def _block(self, number: int) -> Iterator[tuple[Sequence[Tensor], dict[str, Any]]]:
        """(A and B as they are stored, record) of one block under each plan."""
        with self.editor.phases.timed("read"):
            views = {r: v for _, step in self.requests for r, v in step.blocks[number].operands}
            stored = {role: self.editor.load(role, view) for role, view in views.items()}
            refuse_nonfinite(stored)
        chains = [
            Chain(self.editor.plans[plan], step, step.blocks[number], torch.empty(0), {})
            for plan, step in self.requests
        ]
        edits = _Edits(self.editor, chains, stored, self.device)
        for chain in chains:
            with self.editor.phases.timed("decompose"):
                edit = edits.of(chain)
                yield edit.factors(), edit.entry
        edits.keep()


class _Edits:
    """The differences between what chains make of one block and the values that they are added to."""

    def __init__(
        self,
        editor: Editor,
        chains: Sequence[Chain],
        stored: Mapping[str, Tensor],
        device: str,
    ) -> None:
        self.editor, self.stored = editor, stored
        self.are_equal = equality_of(stored)
        self.asked = editor.precision_for(stored.values(), [chain.entry for chain in chains])
        self.decomposed: Decomposed | None = None
        if len(chains[0].block.view.shape) == 2:
            self.decomposed = Decomposed(editor, chains, stored, self.are_equal, device)

    def keep(self) -> None:
        """Put the eigenpairs of all matrices on their shelves."""
        if self.decomposed is not None:
            self.decomposed.keep()

    def of(self, chain: Chain) -> _Edit:
        """The edit of one chain."""
        against = str(chain.step.against)
        role, precision = chain.result_role(self.are_equal), self.asked
        if role is not None and (role == against or self.are_equal([role, against])):
            return _Edit(chain, None, precision, self)
        result: Tensor | Sum
        if role is not None and (chain.step.target is None or self.decomposed is None):
            return _Edit(chain, _Gap(self.stored[role], self.stored[against]), precision, self)
        if role is not None:
            result = self.stored[role]
        elif self.decomposed is not None and chain.on_matrices:
            result, precision = self.decomposed.result(chain, self.asked)
        else:
            result = self.editor.on_tensors(chain, self.stored, self.are_equal).kept
        if self.decomposed is None:
            assert isinstance(result, Tensor)
            return _Edit(chain, _Gap(result, self.stored[against]), precision, self)
        return _Edit(chain, self._difference(result, role, against, precision), precision, self)

    def _difference(
        self, result: Tensor | Sum, role: str | None, against: str, precision: Precision
    ) -> Sum | DenseMatrix | None:
        """Terms alone, or None without any, where the result is terms beside the very matrix that they are added to."""
        assert self.decomposed is not None
        matrices = self.decomposed.under(precision)
        other = matrices[against]
        if isinstance(result, Sum):
            if result.stored is other.sum.stored:
                if not result.terms:
                    return None
                nothing = torch.zeros(1, 1, dtype=precision.combine, device=result.device)
                return Sum(nothing.expand(result.shape), result.terms)
            made = DenseMatrix(other.name, result.stored, precision, result.terms)
            return made - other
        if role is None:
            return other.with_values(result.to(other.stored.device)) - other
        return matrices[role] - other

    def finetuning(self, chain: Chain) -> _Gap | None:
        """All of the fine-tuning, where the adapter is for the base."""
        roles = dict(chain.block.operands)
        if chain.step.against != BASE or FINETUNED not in roles:
            return None
        return _Gap(self.stored[FINETUNED], self.stored[BASE])


class _Gap:
    """The difference of two tensors, computed a few rows at a time; see `Sum.slab`."""

    device = torch.device("cpu")

    def __init__(self, result: Tensor, other: Tensor) -> None:
        sides = result.shape if result.dim() == 2 else (1, result.numel())
        self.result, self.other = result.reshape(sides), other.reshape(sides)
        self.shape = (sides[0], sides[1])

    def slab(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Rows `start` to `stop`."""
        return self.result[start:stop].to(dtype) - self.other[start:stop].to(dtype)


@dataclass
class _Edit:
    """One edit W′ − W of a block.

    Attributes:
        change: what is added to W; None where nothing is.
    """

    chain: Chain
    change: Sum | DenseMatrix | _Gap | None
    precision: Precision
    among: _Edits

    @property
    def entry(self) -> dict[str, Any]:
        """The record of the block; complete once `factors` has returned."""
        return self.chain.entry

    def factors(self) -> Sequence[Tensor]:
        """A and B as they are stored; none where the edit has no place or is nothing."""
        step, plan = self.chain.step, self.chain.plan
        assert plan.emission is not None
        found = None
        if self.change is not None and step.target is not None:
            found = self._rounded(step, step.target, plan.emission)
        left, right = found if found is not None else (None, None)
        self.chain.entry.update(self._measured(left, right))
        if left is None or right is None:
            return ()
        assert step.target is not None
        return (left.mT, right.mT) if step.target.is_embedding else (right, left)

    def _rounded(
        self, step: Step, target: Target, emission: Emission
    ) -> tuple[Tensor, Tensor] | None:
        """left (m, k) and right (k, n), as they are stored; None at rank 0."""
        assert isinstance(self.change, (Sum, DenseMatrix))
        share = _energy(emission)
        if isinstance(self.change, Sum):
            U, S, Vh = _compressed(step.tensor, self.change.terms, share, target.most)
        else:
            k = min(self.change.rank(energy=share), target.most)
            U, S, Vh = self.change.top(k)
        if not len(S) or not float(S[0]):
            return None
        root, dtype = S.double().sqrt(), TORCH_DTYPES[emission.dtype]
        left, right = U.double() * root, root[:, None] * Vh.double()
        rounded = round_once(left.cpu(), dtype), round_once(right.cpu(), dtype)
        if not all(map(all_finite, rounded)):
            raise RunFailed(
                step.tensor, f"its factors overflow {emission.dtype}",
                "Store them wider: --dtype bfloat16 or --dtype float32.",
            )  # fmt: skip
        return rounded

    def _measured(self, left: Tensor | None, right: Tensor | None) -> dict[str, Any]:
        """For the record: rank, norms, and what the factors miss of the edit and of the fine-tuning."""
        against = self.among.stored[str(self.chain.step.against)]
        change = self.change.sum if isinstance(self.change, DenseMatrix) else self.change
        size, missed = _sizes(change, left, right)
        whole = norm(against)
        entry: dict[str, Any] = {
            "relative_change": float(f"{size / whole if whole else 0.0:.4g}"),
            "changed": size > 0,
            "rank": 0 if left is None else left.shape[1],
            "norm": float(f"{size:.6g}"),
            "error": _relative(missed, size),
        }
        finetuning = self.among.finetuning(self.chain)
        if finetuning is not None:
            size, missed = _sizes(finetuning, left, right)
            entry |= {"finetuning_norm": float(f"{size:.6g}")}
            entry |= {"finetuning_error": _relative(missed, size)}
        return entry


def _energy(emission: Emission) -> float:
    """The share of ‖edit‖_F² that the leading triplets have to hold, so that what is cut off and what
    rounding adds are together no larger than the error that is allowed."""
    allowed, rounding = emission.error, _ROUNDING[emission.dtype]
    cut = math.sqrt(allowed**2 - rounding**2) if allowed > rounding else allowed / 2
    return 1 - cut**2


def _compressed(name: str, terms: Sequence[Term], share: float, most: int) -> Triplets:
    """The leading triplets of Σ left @ right, in float64, from an SVD as small as the terms."""
    left = torch.cat([each.double() for each, _ in terms], dim=1)
    right = torch.cat([each.double() for _, each in terms])
    Q, R = torch.linalg.qr(left)
    P, T = torch.linalg.qr(right.mT)
    core = R @ T.mT
    if not bool(core.any()):
        return Q[:, :0], core.new_zeros(0), P[:, :0].mT
    svd = checked_svd(core)
    if svd is None:
        raise RunFailed(
            name, "no singular value decomposition of the edit converged",
            "Leave the tensor out with --exclude and report the matrix.",
        )  # fmt: skip
    k = min(energy_count(svd.S, share, max(len(left), right.shape[1])), most)
    return Q @ svd.U[:, :k], svd.S[:k], svd.Vh[:k] @ P.mT


def _sizes(
    change: Sum | _Gap | None, left: Tensor | None, right: Tensor | None
) -> tuple[float, float]:
    """(‖change‖_F, ‖change − left right‖_F) in float64, panel by panel."""
    if change is None:
        return 0.0, 0.0
    size = missed = 0.0
    m, n = change.shape
    rows = max(1, PANEL_BYTES // (8 * n))
    there = None if left is None or right is None else (left.to(change.device), right.double())
    for start in range(0, m, rows):
        panel = change.slab(start, min(start + rows, m), torch.float64)
        size = math.hypot(size, norm(panel))
        if there is not None:
            some = there[0][start : start + rows].double()
            panel = torch.addmm(panel, some, there[1].to(panel.device), alpha=-1)
        missed = math.hypot(missed, norm(panel))
    return size, missed


def _relative(missed: float, size: float) -> float:
    return float(f"{missed / size if size else 0.0:.3g}")
