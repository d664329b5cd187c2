"""Which matrices of a base are anchored, at which rank: from headers alone. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..checkpoint.alignment import Subject, correspond
from ..checkpoint.anatomy import Place, View, anatomy_of
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.quantisation import quantisation
from ..checkpoint.roles import BASE
from ..checkpoint.selection import Selection
from ..checkpoint.stacks import one_name
from ..checkpoint.ties import config_ties_head, equal_tensors
from ..errors import InputRefused, UsageError, listed
from ..operations.options import FILTERS
from ..spectral import leading_count
from ..text import as_ranges, table
from . import preflight
from .roster import Consequences, Roster, alike

_WEIGHT = re.compile(r"(weight|weight_packed|_blocks)$")  # of a map, not the scales beside it
# CPU seconds of one core for a multiply-add of `AnchorStep.work`, from benchmarks/results/anchor.json.
_SECONDS = 80e-12
_REST = Consequences("not anchored", "not anchored", "not anchored")


@dataclass(frozen=True, slots=True)
class AnchorStep:
    """One matrix to anchor.

    Attributes:
        view: where the base stores the matrix: a whole tensor.
        tensor: that tensor.
        place: where the tensor stands in the model.
        k: number of leading triplets, at least 1; None where the singular values decide.
    """

    view: View
    tensor: Tensor
    place: Place
    k: int | None

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n) = (out, in)."""
        m, n = self.view.shape
        return m, n

    @property
    def most(self) -> int:
        """The largest k that the matrix may turn out to have."""
        return min(self.shape) if self.k is None else self.k

    @property
    def is_full(self) -> bool:
        """Whether it is known that the whole matrix is anchored, so that nothing is decomposed."""
        return self.k == min(self.shape)

    @property
    def work(self) -> float:
        """Multiply-adds of a Gram matrix, an eigenproblem and the factors, in millions."""
        m, n = self.shape
        r, k = min(m, n), self.most
        if self.is_full:
            return m * n * 1e-6
        return (m * n * (r + 2 * k) + 8 * r**3) * 1e-6


@dataclass(frozen=True)
class AnchorPlan:
    """What is anchored.

    Attributes:
        steps: the matrices, in the order of the base.
        rank: one of `top`, `rank` and `energy`, by name.
        selection: the filters.
        inputs: the identity of the base (see `Checkpoint.identity`), by role.
        dtype: of the factors, as safetensors names it.
        notes: what the user should know, as sentences.
    """

    steps: tuple[AnchorStep, ...]
    rank: Mapping[str, Any]
    selection: Selection
    inputs: Mapping[str, Any]
    dtype: str
    notes: tuple[str, ...]

    @property
    def asked(self) -> dict[str, Any]:
        """The rank and the filters that were given, as JSON has them."""
        filters = {p.name: getattr(self.selection, p.name) for p in FILTERS}
        given = {n: list(v) for n, v in filters.items() if v is not None and v != ()}
        return {**self.rank, **given}

    @property
    def words(self) -> str:
        """`top 0.2, layers 0-9`: what was asked for, in a line."""
        said = [(key, as_ranges(v) if key == "layers" else v) for key, v in self.asked.items()]
        listings = ((key, ", ".join(v) if isinstance(v, list) else v) for key, v in said)
        return ", ".join(f"{key} {value}" for key, value in listings)

    @property
    def by_energy(self) -> bool:
        """Whether the singular values decide the ranks, which are found in a pass of their own."""
        return "energy" in self.rank

    @property
    def digest(self) -> str:
        """Identifies the plan: what is anchored of which base, and how it is stored."""
        shapes = [(s.name, s.shape, s.k) for s in self.steps]
        material = json.dumps([self.asked, self.inputs, self.dtype, shapes], sort_keys=True)
        return hashlib.sha256(material.encode()).hexdigest()[:16]

    @property
    def bytes_in(self) -> int:
        return sum(step.tensor.size_bytes for step in self.steps)

    @property
    def work(self) -> float:
        """That of all matrices, in millions of multiply-adds; by energy, in two passes."""
        return sum(step.work for step in self.steps) * (2 if self.by_energy else 1)

    @property
    def seconds(self) -> float:
        """Estimated CPU seconds of one core in precision `exact`, for all matrices together."""
        return self.work * 1e6 * _SECONDS

    def with_ranks(self, ranks: Sequence[int]) -> AnchorPlan:
        """The plan with the ranks that the singular values decided, without matrices of zeros.

        Raises:
            InputRefused: every rank is 0.
        """
        pairs = list(zip(self.steps, ranks, strict=True))
        steps = tuple(replace(step, k=k) for step, k in pairs if k)
        zero = [step.name for step, k in pairs if not k]
        if not steps:
            what = f"every value is zero in {listed(zero, 'selected matrix', 3)}"
            raise InputRefused(BASE, what, "Select others.")
        note = f"all zero, not anchored: {listed(zero, 'matrix', 3)}"
        return replace(self, steps=steps, notes=(*self.notes, note) if zero else self.notes)

    def as_table(self) -> str:
        """A table of what is anchored; a line is one name in all layers."""
        groups: dict[tuple[str, str, str], int] = {}
        for step in self.steps:
            layer = step.place.layer
            name = step.name if layer is None else one_name(step.name, layer)
            k = "energy" if step.k is None else f"{step.k}{' (all)' if step.is_full else ''}"
            key = (name, " × ".join(map(str, step.tensor.shape)), k)
            groups[key] = groups.get(key, 0) + 1
        rows = [(*key, count) for key, count in groups.items()]
        return table(("matrix", "shape", "k", "count"), rows, right="k count")


def plan_anchor(
    base: Checkpoint, rank: Mapping[str, Any], selection: Selection, dtype: str
) -> AnchorPlan:
    """Choose the matrices of a base to anchor, and their ranks.

    Args:
        rank: one of `top`, `rank` and `energy`, by name.
        dtype: of the factors, as safetensors names it.

    Raises:
        InputRefused: no matrix is selected, a selected weight is quantised or holds no data.
        UsageError: the rank is 0 for every matrix.
    """
    chosen = _Chosen(base, selection)
    steps, empty = [], []
    for subject in chosen.subjects:
        (view,) = subject.views
        r = min(view.shape)
        k = (
            leading_count(r, top=rank.get("top"), rank=rank.get("rank"))
            if _is_known(rank)
            else None
        )
        if k == 0:
            empty.append(subject.tensor.name)
        else:
            steps.append(AnchorStep(view, subject.tensor, subject.place, k))
    (name, value), *_ = rank.items()
    if not steps or value == 0:
        raise UsageError(f"--{name}", f"{value:g} anchors nothing", "Give more than 0.")
    notes = list(chosen.notes())
    if empty:
        notes.append(f"k = 0, not anchored: {listed(empty, 'matrix', 3)}")
    return AnchorPlan(
        tuple(steps), dict(rank), selection, {BASE: base.identity()}, dtype, tuple(notes)
    )


def _is_known(rank: Mapping[str, Any]) -> bool:
    return rank.get("energy") is None


class _Chosen:
    """The selected matrices of a checkpoint, each a tensor of its own.

    Attributes:
        subjects: those to anchor, in file order.
    """

    def __init__(self, base: Checkpoint, selection: Selection) -> None:
        self.base, self.selection, self.anatomy = base, selection, anatomy_of(base)
        selection.check(self.anatomy.stacks.all, self.anatomy.main)
        everything = correspond(BASE, {BASE: self.anatomy})
        self.roster = Roster(BASE, [], everything, _REST)
        admitted = [s for s in everything if self._admits(s)]
        self._refuse(everything)
        apart = config_ties_head(base.config) is False  # then equal values are no tie
        groups = [] if apart else equal_tensors(base, self.anatomy)
        tied = {name for group in groups for name in group[1:]}
        self.twins = [s.tensor.name for s in admitted if s.tensor.name in tied]
        self.fused = [s.tensor for s in admitted if not _is_one(s)]
        self.subjects = [s for s in admitted if _is_one(s) and s.tensor.name not in tied]
        if not self.subjects:
            raise InputRefused(
                f"{BASE} ({base.label})",
                f"every selected matrix shares its tensor with others: {alike(self.fused)}",
                "An anchor holds matrices that are tensors of their own; select others.",
            )

    def _admits(self, subject: Subject) -> bool:
        name, place = subject.tensor.name, subject.place
        chosen = self.selection.picks(name, place, matrices_only=True)
        by_name = self.selection.names_module(place.module)
        return self.roster.admits(subject, [] if chosen else None, by_name)

    def _refuse(self, everything: Sequence[Subject]) -> None:
        """Refuse empty weights, packed ones that would be selected, and a selection of none."""
        weights = [s for s in everything if _WEIGHT.search(s.tensor.name)]
        if hollow := [s.tensor.name for s in weights if 0 in s.tensor.shape]:
            raise InputRefused(
                f"{BASE} ({self.base.label})",
                f"{listed(hollow, 'tensor', 3)} hold no data: saved under DeepSpeed ZeRO-3 without"
                " gathering the parameters",
                "Run zero_to_fp32.py on the DeepSpeed checkpoint, or save with"
                " stage3_gather_16bit_weights_on_model_save.",
            )
        packed = quantisation(self.base).packed
        places = [
            (s.tensor.name, replace(s.place, is_matrix=True))
            for s in weights
            if s.tensor.name in packed
        ]
        picked = [n for n, p in places if self.selection.picks(n, p, matrices_only=True)]
        preflight.refuse_packed(self.base, BASE, picked)
        self.roster.refuse_nothing_selected([(self.selection, True)], self.anatomy.depth)

    def notes(self) -> Iterator[str]:
        """What the user should know from headers, as sentences."""
        yield from self.base.notes
        yield from self.anatomy.notes
        for glob in self.selection.idle_globs(self.base.tensors):
            yield f"{glob!r} matches no tensor: a glob is for the whole name, like '*{glob}*'"
        if self.twins:
            yield f"one tensor under several names, anchored once: {listed(self.twins, 'name', 3)}"
        if self.fused:
            yield f"not anchored, several matrices in one tensor: {alike(self.fused)}"


def _is_one(subject: Subject) -> bool:
    """Whether a tensor is one matrix, and nothing else."""
    return len(subject.views) == 1 and len(subject.tensor.shape) == 2


def working_set(step: AnchorStep) -> int:
    """Estimated peak memory in bytes of anchoring a matrix on the CPU.

    It is the sum of the stored matrix, the decomposition in progress, and the leading k factors.
    """
    if step.is_full:
        return step.tensor.size_bytes
    m, n = step.shape
    r = min(m, n)
    return int(step.tensor.size_bytes + 8 * (4 * r * r + 0.25 * m * n + 2 * step.most * (m + n)))
