"""A penalty on how far a model's weights have moved from where their training began."""

from __future__ import annotations

import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import UsageError, listed
from ..text import size
from .terms import DenseTerm, Term

if TYPE_CHECKING:
    from .parameters import Found

_LOG = logging.getLogger("uvmerge")


@dataclass
class Bound:
    """A penalty on the parameters of one model.

    Attributes:
        model: the model.
        terms: the penalty on each matrix, by name.
        skipped: why each other matrix is not penalised, by name.
    """

    model: weakref.ref[nn.Module]
    terms: dict[str, Term] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def is_of(self, found: Mapping[str, Found]) -> bool:
        """Whether the terms are on these parameters."""
        return all(term.is_of(found[name]) for name, term in self.terms.items() if name in found)

    def told(self) -> str:
        """How many matrices are penalised, how many are not and why, and the memory it takes."""
        every = len(self.terms) + len(self.skipped)
        parts = [f"{len(self.terms):,} of {every:,} matrices anchored"]
        for why in dict.fromkeys(self.skipped.values()):
            names = [name for name, reason in self.skipped.items() if reason == why]
            parts.append(f"skipped, {why}: {listed(names, 'matrix', 2)}")
        memory = [term.memory for term in self.terms.values()]
        factors, starts = (sum(each) for each in zip(*memory, strict=True))
        kept = any(isinstance(t, DenseTerm) and t.penalty.keeps_start for t in self.terms.values())
        start = "start weights, kept for the precision of the training" if kept else "start blocks"
        return "; ".join([*parts, f"memory: factors {size(factors)}, {start} {size(starts)}"])


class WeightPenalty(ABC):
    """A penalty λ·ΣR on the movement of weights, for any loop that trains a model.

    Args:
        strength: λ ≥ 0; 0 only measures.
        every: the gradient is added in every n-th step, times n.

    Attributes:
        reported: names under which λ·ΣR (the mean since the last report), its share of task loss and
            penalty, and √ΣR are sent to what a trainer reports to.
    """

    reported: ClassVar[tuple[str, str, str]] = ("penalty", "penalty_share", "block_drift")

    def __init__(self, strength: float, every: int) -> None:
        if not 0 <= strength < float("inf"):
            raise UsageError("strength", f"{strength} is not a number from 0", "Take 1.0.")
        if type(every) is not int or every < 1:
            raise UsageError("every", f"{every!r} is not a number of steps", "Take 1.")
        self.strength, self.every = float(strength), every
        self._bound: Bound | None = None
        self._calls = 0
        self._told = ""

    @abstractmethod
    def find(self, model: nn.Module) -> Mapping[str, Found]:
        """The parameters that are to be penalised, by name; refusals happen here."""

    @abstractmethod
    def term(self, name: str, found: Found, model: nn.Module) -> Term | str:
        """The penalty that is 0 at a parameter as it is now, or why there is none."""

    def bind(self, model: nn.Module, *, anew: bool = False) -> Bound:
        """Find the parameters, check them, and take the start from them. Called again, it is kept.

        A training loop need not call this, except before the first forward pass of a model under
        `fully_shard`, and before the weights of a start are changed.

        Args:
            model: the model, wrapped or not.
            anew: whether the model's present weights become the start, whatever was taken before.

        Raises:
            InputRefused: names the tensor that cannot be penalised.
        """
        found, previous = self.find(model), self._bound
        if previous is not None and not anew and previous.is_of(found):
            return previous
        known = {} if anew or previous is None or previous.model() is not model else previous.terms
        bound, places = Bound(weakref.ref(model)), dict[int, str]()
        for name, each in found.items():
            if id(each.parameter) in places:
                bound.skipped[name] = f"tied to {places[id(each.parameter)]}"
                continue
            term = known[name].moved_to(each) if name in known else self.term(name, each, model)
            if isinstance(term, str):
                bound.skipped[name] = term
            else:
                bound.terms[name] = term
                places[id(each.parameter)] = name
        self.check(bound)
        self._bound = bound
        self._tell(bound)
        return bound

    @abstractmethod
    def check(self, bound: Bound) -> None:
        """Refuse what was found, if nothing in it can be penalised."""

    def penalty(self, model: nn.Module) -> Tensor:
        """λ·ΣR with a graph: a scalar to add to the loss of a hand-written loop, once a step.

        `every` is left out of account. Autocast does not reach the computation.

        Args:
            model: the model; its first call takes the start from it (see `bind`).

        Raises:
            InputRefused: names the tensor that cannot be penalised.
        """
        return self.strength * self._total(self.bind(model))

    @torch.no_grad()
    def drift(self, model: nn.Module) -> float:
        """√ΣR: how far the model has moved from its start, as the penalty sees it."""
        return float(self._total(self.bind(model)).sqrt())

    def add_gradient(self, model: nn.Module, scale: float = 1.0) -> Tensor | None:
        """Add the gradient of λ·ΣR, for a loop between backward and clipping. No graph is built.

        Args:
            model: the model; its first call takes the start from it (see `bind`).
            scale: of the gradients that are there, like `GradScaler.get_scale()`.

        Returns:
            λ·ΣR, a scalar; None in a step that `every` leaves out.

        Raises:
            InputRefused: names the tensor that cannot be penalised.
        """
        bound = self.bind(model)
        self._calls += 1
        return None if self._calls % self.every else self.strength * self.add(bound, scale)

    @torch.no_grad()
    def add(self, bound: Bound, scale: float = 1.0) -> Tensor:
        """Add the gradient of λ·ΣR times `every` and `scale`; returns ΣR, a scalar."""
        factor = self.strength * self.every * scale
        with _no_autocast(bound):
            return _sum([term.add_gradient(factor) for term in bound.terms.values()])

    def callback(self) -> Any:
        """A `TrainerCallback` that adds the penalty to an unmodified trainer's gradients.

        SFTTrainer(..., callbacks=[anchor.callback()])
        """
        from .hooks import callback

        return callback(self)

    def attach(self, trainer: Any) -> Any:
        """Add `callback()` to a trainer, and send the values named in `reported` to its reports.

        Args:
            trainer: a `transformers.Trainer` or one made from it, before it trains. A callback that
                it has already is not added again.

        Returns:
            The callback.
        """
        from .hooks import attach

        return attach(self, trainer)

    def _total(self, bound: Bound) -> Tensor:
        with _no_autocast(bound):
            return _sum([term.value() for term in bound.terms.values()])

    def _tell(self, bound: Bound) -> None:
        """Log what is anchored, on the first process, at the level that is shown by default."""
        told = bound.told()
        if self.every > 1:
            told += f"; added in every {self.every}th step, times {self.every}"
        is_first = not torch.distributed.is_available() or not torch.distributed.is_initialized()
        if told != self._told and (is_first or torch.distributed.get_rank() == 0):
            _LOG.warning("%s: %s", type(self).__name__, told)
        self._told = told


def _sum(values: list[Tensor]) -> Tensor:
    """The sum of scalars, which may be on several devices."""
    return torch.stack([value.to(values[0].device) for value in values]).sum()


def _no_autocast(bound: Bound) -> torch.autocast:
    term = next(iter(bound.terms.values()))
    parameter = term.parameter if isinstance(term, DenseTerm) else term.adapter.B
    return torch.autocast(parameter.device.type, enabled=False)
