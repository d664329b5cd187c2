"""Which matrices of several checkpoints are to be measured against which of the base. Pure.

The comparison's counterpart of `planner`: names, shapes and dtypes from headers alone.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..checkpoint.alignment import Subject, correspond
from ..checkpoint.anatomy import Anatomy, Place, View, anatomy_of
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.roles import BASE, FINETUNED
from ..checkpoint.selection import Selection
from ..errors import Unrelated
from . import preflight
from .roster import Consequences, Roster

_CONSEQUENCES = Consequences("not compared", "not compared", "not compared")


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


@dataclass(frozen=True)
class Partners:
    """One checkpoint beside the base.

    Attributes:
        rest: other tensors (base, fine-tuned, module) of the same shape.
        notes: what the user should know.
    """

    rest: Sequence[tuple[Tensor, Tensor, str]]
    notes: Sequence[str]


@dataclass(frozen=True)
class Pairing:
    """What is to be compared: `matches` in the base's order, and per checkpoint the rest."""

    matches: tuple[Match, ...]
    partners: tuple[Partners, ...]


def roles(count: int) -> list[str]:
    """The roles in a comparison of so many checkpoints: the base, and the fine-tuned or numbers."""
    if count == 2:
        return [BASE, FINETUNED]
    return [BASE, *(f"checkpoint {number}" for number in range(1, count))]


def pair(
    base: Checkpoint,
    others: Sequence[Checkpoint],
    selection: Selection,
    layer_map: Mapping[int, int] | None = None,
) -> Pairing:
    """Match the selected matrices of each checkpoint with the base's.

    Raises:
        InputRefused: what refuses an edit of the same pair, in the same words.
        Unrelated: the names of a pair, or all of its shapes, have too little in common.
    """
    anatomy = anatomy_of(base)
    found: dict[View, list[View | None]] = defaultdict(lambda: [None] * len(others))
    places: dict[View, Place] = {}
    partners = []
    for number, (role, other) in enumerate(zip(roles(1 + len(others))[1:], others)):
        anatomies = {BASE: anatomy, role: anatomy_of(other)}
        if layer_map is None:
            preflight.refuse_other_depths({BASE: base, role: other})
        matched = _Matched(role, anatomies, selection, layer_map)
        for view, ours, place in matched.views:
            found[view][number] = ours
            places.setdefault(view, place)
        matched.refuse_mismatches({BASE: base, role: other})
        notes = [*other.notes, *anatomies[role].notes, *matched.roster.notes()]
        partners.append(Partners(matched.rest, notes))
    order = [v for t in anatomy.tensors.values() for v in anatomy.views(t) if v in found]
    kinds = _roles((view.tensor, places[view]) for view in order)
    matches = (Match(v, places[v], kinds[v.tensor], tuple(found[v])) for v in order)
    return Pairing(tuple(matches), tuple(partners))


class _Matched:
    """One checkpoint beside the base: what of its tensors is measured, and what subtracted.

    Attributes:
        views: (base, fine-tuned, place) of each matrix to measure.
        rest: other tensors (base, fine-tuned, module) of the same shape.
    """

    def __init__(
        self,
        role: str,
        anatomies: Mapping[str, Anatomy],
        selection: Selection,
        layer_map: Mapping[int, int] | None,
    ) -> None:
        self.selection, self.depth = selection, anatomies[role].depth
        selection.check(anatomies[role].stacks.all, anatomies[role].main)
        subjects = correspond(role, anatomies, layer_map)
        self.roster = Roster(role, [BASE], subjects, _CONSEQUENCES)
        self.views: list[tuple[View, View, Place]] = []
        self.rest: list[tuple[Tensor, Tensor, str]] = []
        for subject in subjects:
            if subject.role == role:
                self._assign(subject)

    def _assign(self, subject: Subject) -> None:
        tensor, place, partner = subject.tensor, subject.place, subject.partners[BASE]
        chosen = self.selection.picks(tensor.name, place, matrices_only=True)
        by_name = self.selection.names_module(place.module)
        if self.roster.admits(subject, [BASE] if chosen else None, by_name):
            self.roster.matched += 1
            pairs = zip(partner.views, subject.views, strict=True)
            self.views += [(theirs, ours, place) for theirs, ours in pairs if theirs is not None]
            return
        whole = partner.tensor
        if whole is not None and whole.shape == tensor.shape and self._is_wide and not chosen:
            self.rest.append((whole, tensor, place.module))

    @property
    def _is_wide(self) -> bool:
        """Whether the user did not narrow the comparison to some layers or names."""
        chosen = self.selection
        return chosen.layers is None and not chosen.include and not chosen.exclude

    def refuse_mismatches(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        self.roster.refuse_empty(checkpoints)
        self.roster.refuse_nothing_selected([(self.selection, True)], self.depth)
        self.roster.refuse_misfits(Unrelated)


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
