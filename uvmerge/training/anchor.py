"""`RotationAnchor`: an anchor file as a penalty on the leading directions of a model in training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputRefused, UsageError, counted
from . import parameters
from .anchor_file import AnchoredMatrix, AnchorFile, content_hash
from .penalty import Bound, WeightPenalty
from .rpsft import PARTS, SIDES, Projection
from .shards import is_sharded, whole
from .terms import AdapterTerm, DenseTerm, Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from .parameters import Found

STARTS = ("anchor", "current")


class RotationAnchor(WeightPenalty):
    """λ·Σ‖Uᵀ(W − W₀)V‖² over the matrices of an anchor file, for any loop that trains the model.

    Args:
        file: the anchor file.
        strength: λ; see `load` for this one and the others.
    """

    def __init__(
        self,
        file: AnchorFile,
        *,
        strength: float = 1.0,
        part: str = "block",
        side: str = "two",
        every: int = 1,
        start: str = "anchor",
    ) -> None:
        super().__init__(strength, every)
        for option, given, known in (
            ("part", part, PARTS), ("side", side, SIDES), ("start", start, STARTS)
        ):  # fmt: skip
            if given not in known:
                raise UsageError(option, f"{given!r} is not known", f"Take {', '.join(known)}.")
        if part != "block" and side != "two":
            what = f"one side has no {part} part: it has no diagonal"
            raise UsageError("part", what, 'Take part="block", or side="two".')
        whole_matrix = next((m.name for m in file.matrices.values() if m.full), None)
        if part != "block" and whole_matrix is not None:
            what = f"is anchored as a whole, so that it has no {part} part"
            raise InputRefused(
                whole_matrix, what, "Build the anchor with a smaller --top or --rank."
            )
        self.file, self.part, self.side, self.start = file, part, side, start

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        strength: float = 1.0,
        part: str = "block",
        side: str = "two",
        every: int = 1,
        start: str = "anchor",
    ) -> RotationAnchor:
        """Open an anchor file that `uvmerge anchor build` has written.

        Args:
            path: the file.
            strength: λ ≥ 0; 0 only measures.
            part: of the block UᵀΔV: `block`, all of it; `diag`, its diagonal (the singular values);
                `rot`, the rest (the rotation).
            side: `two`, ‖UᵀΔV‖²; `left`, ‖UᵀΔ‖², of the outputs; `right`, ‖ΔV‖², of the inputs. A
                matrix of k ≥ min(m, n) is penalised as a whole, ‖Δ‖².
            every: the gradient is added in every n-th step, times n.
            start: `anchor`, the weights of the model are those that the file was built from, or the
                model is refused; `current`, any weights: the penalty is 0 where training begins.

        Raises:
            InputRefused: the file is damaged, or no anchor file.
            UsageError: an option that does not exist.
        """
        file = AnchorFile.open(path)
        return cls(file, strength=strength, part=part, side=side, every=every, start=start)

    def find(self, model: nn.Module) -> Mapping[str, Found]:
        """The anchored matrices in the model (see `parameters.find`)."""
        return parameters.find(model, self.file.matrices, str(self.file.path))

    def term(self, name: str, found: Found, model: nn.Module) -> Term | str:
        """The penalty on a matrix, or why there is none.

        Raises:
            InputRefused: the matrix is frozen, has another shape or another start.
        """
        matrix = self.file.matrices[name]
        if found.parameter.shape != matrix.shape:
            shape = tuple(found.parameter.shape)
            what = f"has shape {shape} in the model, {matrix.shape} in the anchor"
            raise InputRefused(name, what, "Build the anchor from the base of this model.")
        if not found.trained:
            if not parameters.has_adapters(model):
                raise parameters.frozen(name)
            return "frozen, without an adapter"
        self._check_start(matrix, found)
        projection = self._projection(matrix, found)
        if found.adapter is not None:
            return AdapterTerm.of(found.adapter, projection)
        if parameters.is_sharded_model(model) and not is_sharded(found.parameter):
            what = "is gathered: the penalty was first asked for after a forward pass"
            raise InputRefused(name, what, "Call bind(model) once, right after fully_shard.")
        return DenseTerm.of(found, projection)

    def check(self, bound: Bound) -> None:
        """Refuse a model of which no matrix is anchored.

        Raises:
            InputRefused: says why.
        """
        if not bound.terms:
            reasons = ", ".join(dict.fromkeys(bound.skipped.values())) or "the anchor is empty"
            what = f"0 of {counted(len(bound.skipped), 'matrix')} can be anchored: {reasons}"
            do = "Train these matrices, or build the anchor of those that are trained."
            raise InputRefused(str(self.file.path), what, do)

    def _check_start(self, matrix: AnchoredMatrix, found: Found) -> None:
        if self.start == "anchor":
            if content_hash(whole(found.parameter), matrix.dtype) != matrix.content_hash:
                what = "has other values than the base of the anchor"
                do = 'Start from that base, or load the anchor with start="current".'
                raise InputRefused(matrix.name, what, do)
        elif found.adapter is not None and bool(whole(found.adapter.B.detach()).any()):
            what = "starts with an adapter that is not 0, and the weights without it are unknown"
            do = 'Merge the adapter first, or load the anchor of its base with start="anchor".'
            raise InputRefused(matrix.name, what, do)

    def _projection(self, matrix: AnchoredMatrix, found: Found) -> Projection:
        if matrix.full:
            return Projection()
        U, V = self.file.factors(matrix.name, device=found.parameter.device)
        # The side of the outputs is that of the columns where a tensor is stored as (in, out).
        outputs, inputs = ("right", "left") if matrix.transposed else ("left", "right")
        return Projection(
            None if self.side == inputs else U, None if self.side == outputs else V, self.part
        )
