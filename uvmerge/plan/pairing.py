"""Which matrices of several checkpoints are to be measured against which of the base. Pure.

The comparison's counterpart of `plan.py`: names, shapes and dtypes from headers alone.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..checkpoint.alignment import Alignment, refuse_ungathered
from ..checkpoint.anatomy import Anatomy, Place, View
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import FLOATS
from ..checkpoint.selection import Selection
from ..errors import InputRefused, Unrelated, counted, listed


@dataclass(frozen=True)
class Match:
    """One matrix of the base, and what it became.

    Attributes:
        base: where it is.
        place: where it stands in the model.
        role: what it is in its layer; the same in every layer.
        others: per checkpoint the corresponding matrix, or None where there is none.
    """

    base: View
    place: Place
    role: str
    others: tuple[View | None, ...]

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.base.shape
        return m, n


@dataclass
class Partners:
    """One checkpoint beside the base.

    Attributes:
        matrices: how many of its matrices are to be measured.
        rest: other tensors (base, fine-tuned, module) of the same shape.
        notes: what the user should know.
    """

    matrices: int = 0
    rest: list[tuple[Tensor, Tensor, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pairing:
    """What is to be compared: `matches` in the order of the base's files, and per checkpoint the rest."""

    matches: tuple[Match, ...]
    partners: tuple[Partners, ...]


def pair(base: Checkpoint, others: Sequence[Checkpoint], selection: Selection) -> Pairing:
    """Match the selected matrices of each checkpoint with the base's.

    Raises:
        InputRefused: names that cannot be aligned in one way, nothing selected, empty tensors.
        Unrelated: fewer than half of the selected matrices have a partner.
    """
    anatomy = Anatomy(base)
    selection.check(anatomy.depth)
    found: dict[View, list[View | None]] = defaultdict(lambda: [None] * len(others))
    places: dict[View, Place] = {}
    partners = []
    for number, other in enumerate(others):
        matcher = _Matcher(anatomy, base, other, selection)
        for view, ours, place in matcher.matches():
            found[view][number] = ours
            places.setdefault(view, place)
        matcher.refuse_mismatches()
        partners.append(matcher.partners)
    order = [v for t in anatomy.tensors.values() for v in anatomy.views(t) if v in found]
    roles = _roles((view.tensor, places[view]) for view in order)
    matches = (Match(v, places[v], roles[v.tensor], tuple(found[v])) for v in order)
    return Pairing(tuple(matches), tuple(partners))


class _Matcher:
    """Walks the tensors of one checkpoint once."""

    def __init__(
        self, base: Anatomy, checkpoint: Checkpoint, other: Checkpoint, selection: Selection
    ) -> None:
        self.base, self.checkpoint, self.other = base, checkpoint, other
        self.anatomy, self.selection = Anatomy(other), selection
        self.alignment = Alignment(base, self.anatomy)
        self.partners = Partners()
        self.selected = 0
        self.used: set[View] = set()  # of the base
        self.without: list[str] = []  # of the selected tensors, those without a partner
        self.unlike: list[str] = []  # of another shape or kind in the base
        self.only_here: list[str] = []

    def matches(self) -> Iterable[tuple[View, View, Place]]:
        """(base, fine-tuned, place) of each matrix to measure; everything else is noted."""
        empty = []
        for tensor in self.anatomy.tensors.values():
            place, partner = self.anatomy.place(tensor), self.alignment.tensor(tensor)
            if partner is not None and (tensor.size_bytes == 0) != (partner.size_bytes == 0):
                empty.append(tensor.name)
            elif self.selection.picks(tensor.name, place, matrices_only=True):
                yield from self._views(tensor, place)
            elif partner is None:
                self.only_here.append(tensor.name)
            elif partner.shape != tensor.shape:
                self.unlike.append(_shapes(tensor.name, tensor.shape, partner.shape))
            elif self._is_wide:
                self.partners.rest.append((partner, tensor, place.module))
        if empty:
            where = f"{self.checkpoint.label} or {self.other.label}"
            refuse_ungathered(where, empty)
        self.partners.notes += self._notes()

    @property
    def _is_wide(self) -> bool:
        """Whether the user did not narrow the comparison to some layers or names."""
        chosen = self.selection
        return chosen.layers is None and not chosen.include and not chosen.exclude

    def _views(self, tensor: Tensor, place: Place) -> Iterable[tuple[View, View, Place]]:
        self.selected += 1
        views = self.anatomy.views(tensor)
        partners = [self.alignment.view(view) for view in views]
        if None in partners:
            self.without.append(tensor.name)
            return
        for view, partner in zip(views, partners):
            assert partner is not None
            if partner.shape != view.shape:
                self.unlike.append(_shapes(view.label, view.shape, partner.shape))
            elif (dtype := self.base.tensors[partner.tensor].dtype) not in FLOATS:
                self.unlike.append(f"{view.label} ({tensor.dtype} against {dtype} in the base)")
            elif partner in self.used:
                self.unlike.append(f"{view.label} ({partner.label} is compared with another one)")
            else:
                self.used.add(partner)
                self.partners.matrices += 1
                yield partner, view, place

    def refuse_mismatches(self) -> None:
        where = f"{self.checkpoint.label} and {self.other.label}"
        if not self.selected and (picked := self._other_picked()):
            raise InputRefused(
                "selection", f"no matrix selected: what passes the filters is none"
                f" ({listed(picked, 'tensor', 3)})",
                "Select a matrix too; without filters, norms and biases are subtracted beside them.",
            )  # fmt: skip
        if not self.selected:
            raise InputRefused(
                "selection", f"nothing selected: none of {counted(len(self.anatomy.tensors), 'tensor')}"
                f" of {self.other.label} passes the filters (the model has {self.anatomy.depth} layers)",
                "Widen --layers, --modules or --include; `uvmerge show` lists names and modules.",
            )  # fmt: skip
        if 2 * len(self.without) > self.selected or not self.partners.matrices:
            odd = (
                f"the base lacks {listed(self.without, 'tensor', 3)}"
                if self.without
                else f"shapes differ in {listed(self.unlike, 'tensor', 3)}"
            )
            matrices = (t.name for t in self.base.tensors.values() if self.base.place(t).is_matrix)
            raise Unrelated(
                where, f"unrelated by their names: of {self.selected:,} selected, {odd}; the base has"
                f" names like {next(matrices, '(no matrix)')}",
                "Check that both are checkpoints of one model.",
            )  # fmt: skip

    def _other_picked(self) -> list[str]:
        """What passes the filters and is no matrix."""
        return [
            tensor.name
            for tensor in self.anatomy.tensors.values()
            if self.selection.picks(tensor.name, self.anatomy.place(tensor), matrices_only=False)
            and not self.anatomy.place(tensor).is_matrix
        ]

    def _notes(self) -> Iterable[str]:
        yield from self.other.notes
        yield from self.anatomy.notes
        yield from self.alignment.notes
        if self.without or self.only_here:
            only = [*self.without, *self.only_here]
            yield f"only in {self.other.label}, not compared: {listed(only, 'tensor', 3)}"
        if only := self.alignment.only_in_base():
            yield f"only in the base, not compared: {listed(only, 'tensor', 3)}"
        if self.unlike:
            unlike = listed(self.unlike, "tensor", 3)
            yield f"of another shape or kind in the base, not compared: {unlike}"


def _shapes(name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    return f"{name} ({list(ours)} against {list(theirs)} in the base)"


def _roles(tensors: Iterable[tuple[str, Place]]) -> dict[str, str]:
    """Per tensor name what it is in its layer: the shortest end of its name, without numbers, that no
    other kind of tensor has (`q_proj`; `attention.output.dense` beside `output.dense`)."""
    whole = {name: _kind(name, place) for name, place in tensors}
    ends = {kind: _ends(kind) for kind in set(whole.values())}
    counts = Counter(end for several in ends.values() for end in several)
    short = {
        kind: next(end for end in several if end == kind or counts[end] == 1)
        for kind, several in ends.items()
    }
    return {name: short[kind] for name, kind in whole.items()}


def _ends(kind: str) -> list[str]:
    """`dense`, `output.dense` and `attention.output.dense`."""
    parts = kind.split(".")
    return [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]


def _kind(name: str, place: Place) -> str:
    """`self_attn.q_proj` of `model.layers.3.self_attn.q_proj.weight`."""
    kind = name
    if place.layer is not None:
        kind = re.split(rf"\.{place.layer}\.", name, maxsplit=1)[-1]
    parts = [part for part in kind.removesuffix(".weight").split(".") if not part.isdecimal()]
    return ".".join(parts) or name


def effort(match: Match, k: int) -> float:
    """Multiply-adds of measuring a matrix and its counterparts, in millions, roughly."""
    m, n = match.shape
    r, count = min(m, n), 1 + sum(view is not None for view in match.others)
    return count * (2 * m * n * (r + 3 * k) + 8 * r**3) * 1e-6


def working_set(match: Match, k: int) -> int:
    """Bytes of memory that measuring takes on the CPU, estimated: the matrices as stored, the
    decomposition in hand, and each one's leading factors."""
    m, n = match.shape
    r, count = min(m, n), 1 + sum(view is not None for view in match.others)
    stored = 4 * count * m * n
    return int(stored + 8 * (5 * r * r + 0.25 * m * n) + 8 * (count + 3) * k * (m + n))
