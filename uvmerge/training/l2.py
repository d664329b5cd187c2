"""`StartAnchor`: L2 to the start, the baseline of a penalty on leading directions."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..checkpoint.wrappers import unwrapped
from ..errors import InputRefused
from . import parameters
from .anchor_file import AnchorFile
from .parameters import Found
from .penalty import Bound, WeightPenalty
from .rpsft import Projection
from .shards import is_sharded
from .terms import AdapterTerm, DenseTerm, Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


class StartAnchor(WeightPenalty):
    """λ·Σ‖W − W₀‖², for any loop that trains the model.

    W₀ is the model where training begins. Without factors there is nothing to build and no file; the
    start is kept instead, a copy of what is penalised.

    Args:
        strength: λ ≥ 0; 0 only measures.
        matrices: names of tensors as a checkpoint has them, such as those of an anchor
            (`AnchorFile.matrices`): W is then W₀ + s·BA where a LoRA adapter is trained. By default
            every parameter that is trained, embeddings, norms and the factors of adapters included.
        every: the gradient is added in every n-th step, times n.
    """

    reported: ClassVar[tuple[str, str, str]] = ("l2_penalty", "l2_penalty_share", "l2_drift")

    def __init__(
        self, *, strength: float = 0.1, matrices: Collection[str] | None = None, every: int = 1
    ) -> None:
        super().__init__(strength, every)
        self.matrices = None if matrices is None else tuple(matrices)

    @classmethod
    def over(cls, path: str | Path, *, strength: float = 0.1, every: int = 1) -> StartAnchor:
        """L2 to the start over the matrices of an anchor file, of which only the names are read.

        Raises:
            InputRefused: the file is damaged, or no anchor file.
        """
        return cls(strength=strength, matrices=AnchorFile.open(path).matrices, every=every)

    def find(self, model: nn.Module) -> Mapping[str, Found]:
        """The parameters that are penalised, by name."""
        if self.matrices is not None:
            return parameters.find(model, self.matrices, "the L2 penalty")
        parameters.refuse_engines(model)
        present = {n: p for n, p in model.named_parameters() if p.requires_grad}
        plain, _ = unwrapped(list(present))
        for name, parameter in present.items():
            parameters.refuse_quantised(name, parameter)
        return {plain.get(name, name): Found(name, p, None) for name, p in present.items()}

    def term(self, name: str, found: Found, model: nn.Module) -> Term | str:
        """The penalty on a parameter, or why there is none.

        Raises:
            InputRefused: the parameter is frozen, and nothing is trained in its place.
        """
        if not found.trained:
            if not parameters.has_adapters(model):
                raise parameters.frozen(name)
            return "frozen, without an adapter"
        if found.parameter.ndim == 0:
            return "a single number"
        if found.adapter is not None:
            return AdapterTerm.of(found.adapter, Projection())
        if parameters.is_sharded_model(model) and not is_sharded(found.parameter):
            what = "is gathered: the penalty was first asked for after a forward pass"
            raise InputRefused(name, what, "Call bind(model) once, right after fully_shard.")
        return DenseTerm.of(found, Projection())

    def check(self, bound: Bound) -> None:
        """Refuse a model of which nothing is penalised.

        Raises:
            InputRefused: nothing is trained.
        """
        if not bound.terms:
            what = "has no parameter that is trained and can be penalised"
            raise InputRefused("the model", what, "Train some of its parameters.")
