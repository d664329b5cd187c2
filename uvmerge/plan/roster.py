"""Which tensors take part in an edit or a comparison, and what messages say of the others. Pure.

The planner and the matcher of `diff` read one correspondence and judge it here, so that both give
a pair the same sentences and the same exit code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..checkpoint.alignment import Subject, alignment_notes
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.roles import BASE, spelled
from ..checkpoint.selection import Selection
from ..checkpoint.stacks import template
from ..errors import InputRefused, UvmergeError, counted, listed
from ..text import brief


class Consequences(NamedTuple):
    """What becomes of tensors that take no part, in the words of a note.

    Attributes:
        own: of tensors that only the own checkpoint has (the one whose tensors are looked up).
        other: of tensors that only another checkpoint has.
        unlike: of tensors whose counterpart has another shape or kind.
    """

    own: str
    other: str
    unlike: str


class Roster:
    """The subjects that take part, counted, and the defects of the others.

    Args:
        own: role of the checkpoint whose tensors are looked up in the others.
        others: roles of the other checkpoints.
        subjects: what `correspond` found.
        consequences: what notes say of tensors that take no part.

    Attributes:
        chosen: number of selected subjects.
        matched: number of subjects that are put to use; the caller counts them.
    """

    def __init__(
        self,
        own: str,
        others: Sequence[str],
        subjects: Sequence[Subject],
        consequences: Consequences,
    ) -> None:
        self.own, self.others, self.subjects = own, others, subjects
        self.consequences = consequences
        self.chosen = self.matched = 0
        # Names of tensors, by the role of the checkpoint that holds no data or lacks the tensor.
        self._empty: dict[str, list[str]] = defaultdict(list)
        self._alone: dict[str, list[str]] = defaultdict(list)  # selected or not
        self._lacking: dict[str, list[str]] = defaultdict(list)  # selected
        self._needed: dict[tuple[str, str], list[str]] = defaultdict(list)  # by role and why
        self._lacking_layers = 0  # how many of `_lacking` are in decoder layers
        self._misshapen: list[str] = []  # selected, with a counterpart of another shape
        self._misshapen_layers = 0  # how many of `_misshapen` are in decoder layers
        self._other_shape: list[str] = []  # the same, not selected or not by name
        self._other_kind: list[str] = []

    def admits(self, subject: Subject, wanted: Sequence[str] | None, by_name: bool) -> bool:
        """Whether a subject takes part; where it does not, the roster records why.

        Args:
            wanted: the other roles that the subject is computed with; None if it is not selected.
            by_name: whether the user named the subject's module, which is then not a default.
        """
        name = subject.tensor.name
        role, why = subject.why(self.others if wanted is None else wanted)
        chosen = wanted is not None and 0 not in subject.tensor.shape
        self.chosen += chosen
        if why == "empty":
            mine = subject.tensor.size_bytes == 0
            self._empty[self.own if mine else role].append(name)
        elif why == "missing":
            self._alone[role].append(name)
            if chosen:
                self._lacking[role].append(name)
                self._lacking_layers += subject.place.layer is not None
        elif why == "shape":
            vocabulary = subject.place.module in ("embeddings", "head")
            if chosen and (by_name or not vocabulary):
                self._misshapen.append(f"{name} ({_difference(subject, role)})")
                self._misshapen_layers += subject.place.layer is not None
            else:
                self._other_shape.append(name)
        elif why and chosen:
            self._other_kind.append(f"{name} ({_difference(subject, role)})")
        return chosen and not why

    def need(self, subject: Subject, roles: Sequence[str]) -> None:
        """Record a selected subject that lacks a counterpart of its shape and would change with one."""
        role, why = subject.why(roles)
        if why in ("missing", "shape"):
            self._needed[role, why].append(subject.tensor.name)

    @property
    def _where(self) -> str:
        return " and ".join(map(spelled, (*self.others, self.own)))

    def refuse_empty(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Refuse tensors that hold no data where their counterparts do."""
        for role, names in self._empty.items():
            raise InputRefused(
                f"{role} ({checkpoints[role].label})",
                f"{listed(names, 'tensor')} hold no data: saved under DeepSpeed ZeRO-3 without"
                " gathering the parameters",
                "Run zero_to_fp32.py on the DeepSpeed checkpoint, or save with"
                " stage3_gather_16bit_weights_on_model_save.",
            )

    def refuse_nothing_selected(
        self, filters: Sequence[tuple[Selection, bool]], depth: int
    ) -> None:
        """Refuse filters that no tensor passes.

        Args:
            filters: (selection, whether the operation takes matrices only) of each step.
            depth: number of decoder layers.
        """
        if self.chosen:
            return
        ours = [subject for subject in self.subjects if subject.role == self.own]
        no_matrix = [
            s.tensor.name
            for s in ours
            if any(f.picks(s.tensor.name, s.place, matrices_only=False) for f, _ in filters)
        ]
        if no_matrix and all(matrices_only for _, matrices_only in filters):
            raise InputRefused(
                "selection",
                "no matrix selected: the filters pass only tensors that are not matrices"
                f" ({listed(no_matrix, 'tensor', 3)})",
                "Select a matrix too; norms and biases are not matrices.",
            )
        raise InputRefused(
            "selection",
            f"nothing selected: none of {counted(len(ours), 'tensor')} passes the"
            f" filters (the model has {counted(depth, 'decoder layer')})",
            f"Widen --layers, --modules or --include{self._globs_hint(filters)}; `uvmerge show` lists"
            " names and modules.",
        )

    def _globs_hint(self, filters: Sequence[tuple[Selection, bool]]) -> str:
        """How to widen the first glob that matches no name; empty where all match some."""
        names = [s.tensor.name for s in self.subjects if s.role == self.own]
        idle = [glob for selection, _ in filters for glob in selection.idle_globs(names)]
        return (
            f" ('{brief(idle[0])}' matches no whole name, '*{brief(idle[0])}*' may)" if idle else ""
        )

    def refuse_needed(self) -> None:
        """Refuse selected tensors that would keep the fine-tuning while other tensors change."""
        for (role, why), names in self._needed.items():
            same = " of the same shape" if why == "shape" else ""
            raise InputRefused(
                self._where,
                f"no counterpart{same} in {_named([role])} of"
                f" {listed(names, 'selected tensor', 3)}, which would stay as {spelled(self.own)}"
                " beside others that do not",
                "Leave them out with --exclude, or go on with --force.",
            )

    def refuse_lacking(self) -> None:
        """Refuse selected tensors without a counterpart, which a merge would leave out."""
        for role, names in self._lacking.items():
            raise InputRefused(
                self._where,
                f"no counterpart in {_named([role])} of {listed(names, 'selected tensor', 3)}",
                f"Leave them out with --exclude; --force copies them from {spelled(self.own)}.",
            )

    def refuse_misfits(self, unrelated: type[UvmergeError], *, force: bool | None = None) -> None:
        """Refuse selected tensors of another shape, and checkpoints with too little in common.

        Args:
            unrelated: the class of the error for checkpoints with nothing in common.
            force: whether few matches are enough; None where the caller has no such option.
        """
        if self._misshapen:
            nothing_fits = self._misshapen_layers and not self.matched
            raise (unrelated if nothing_fits else InputRefused)(
                self._where,
                f"shapes differ in {listed(self._misshapen, 'selected tensor', 4)}",
                "Both must come from one model; leave tensors out with --exclude.",
            )
        if self.matched and (force or self._lacking_layers <= self.matched):
            return
        goes_on = " --force goes on." if self.matched and force is not None else ""
        the_other = _named(self.others)
        theirs = [s.tensor.name for s in self.subjects if s.role != self.own]
        theirs += [p.tensor.name for s in self.subjects for p in s.partners.values() if p.tensor]
        raise unrelated(
            self._where,
            self._how_little(the_other),
            f"{the_other.capitalize()} has names like {(theirs or ['(none)'])[0]}. Are both"
            f" checkpoints of one model?{goes_on}",
        )

    def _how_little(self, the_other: str) -> str:
        """Why few or none of the selected tensors are matched, as a sentence."""
        lacking = [name for names in self._lacking.values() for name in names]
        if self.matched:
            return (
                f"too few names match: {the_other} has {self.matched:,} of the selected tensors and"
                f" lacks {listed(lacking, 'tensor', 3)}"
            )
        if lacking:
            return f"nothing matched: {the_other} has no {listed(lacking, 'selected tensor', 3)}"
        if unlike := [*self._other_shape, *self._other_kind]:
            listing = listed(unlike, "tensor", 3)
            return f"nothing matched: of another shape or kind in {the_other}: {listing}"
        return "nothing matched: no selected tensor is floating point"

    def notes(self) -> Iterator[str]:
        """What the user should know of the correspondence, as sentences."""
        yield from alignment_notes(self.subjects)
        own, other, unlike = self.consequences
        for role, names in self._alone.items():
            there = f"only in {spelled(self.own)}" if len(self.others) == 1 else f"not in {role}"
            yield f"{there}, {own}: {listed(names, 'tensor', 3)}"
        for role in self.others:
            if only := [s.tensor.name for s in self.subjects if s.role == role]:
                yield f"only in {spelled(role)}, {other}: {listed(only, 'tensor', 3)}"
        for (role, why), names in self._needed.items():
            if why == "missing":
                listing = listed(names, "tensor", 3)
                yield f"{own} under --force, no counterpart in {_named([role])}: {listing}"
        the_other = _named(self.others)
        if self._other_shape:
            listing = listed(self._other_shape, "tensor", 3)
            yield f"of another shape in {the_other}, {unlike}: {listing} (a changed vocabulary?)"
        if self._other_kind:
            listing = listed(self._other_kind, "tensor", 3)
            yield f"of another kind in {the_other}, {unlike}: {listing}"


def alike(tensors: Sequence[Tensor]) -> str:
    """`8 tensors like model.layers.*.conv1d.weight (8 × 1 × 4), …`: one item for each template."""
    groups: dict[tuple[str, tuple[int, ...]], int] = {}
    for tensor in tensors:
        key = template(tensor.name), tensor.shape
        groups[key] = groups.get(key, 0) + 1
    kinds = [
        f"{counted(count, 'tensor')} like {name} ({' × '.join(map(str, shape))})"
        for (name, shape), count in groups.items()
    ]
    more = f" and {counted(len(kinds) - 3, 'kind')} more" if len(kinds) > 3 else ""
    return f"{', '.join(kinds[:3])}{more}"


def _named(roles: Sequence[str]) -> str:
    """The roles as a message names them: `the base`, every other role as it is spelled."""
    return " or ".join("the base" if role == BASE else spelled(role) for role in roles)


def _difference(subject: Subject, role: str) -> str:
    """How a subject differs from a partner that does not fit: in shape, dtype or owner."""
    partner = subject.partners[role]
    if partner.why == "shape":
        pairs = zip(subject.views, partner.views)
        ours, others = next((a, b) for a, b in pairs if b is not None and a.shape != b.shape)
        return f"{list(ours.shape)} against {list(others.shape)} in {_named([role])}"
    if partner.why == "taken":
        return "its counterpart is that of another tensor"
    theirs = partner.tensor.dtype if partner.tensor else "another dtype"
    return f"{subject.tensor.dtype} against {theirs} in {_named([role])}"
