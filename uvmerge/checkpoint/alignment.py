"""Which tensor of one checkpoint corresponds to which of the others, and why there is none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import counted
from .anatomy import Anatomy, Place, View
from .folder import Tensor
from .matching import Matcher, Partner, differing_prefixes
from .roles import spelled


@dataclass(frozen=True, slots=True)
class Subject:
    """One tensor of one checkpoint, and what the others have in its place.

    Attributes:
        role: of the checkpoint whose tensor it is.
        place: where the tensor stands in the model.
        views: its matrices, in the order of their rows; any other tensor is one view.
        partners: by role; none for a tensor that the reference has nothing like.
    """

    role: str
    tensor: Tensor
    place: Place
    views: tuple[View, ...]
    partners: Mapping[str, Partner]

    def why(self, roles: Iterable[str]) -> tuple[str, str]:
        """The first of some other roles whose partner does not take part, and why; or ("", "")."""
        whys = ((role, self.partners[role].why) for role in roles)
        return next((each for each in whys if each[1]), ("", ""))


def correspond(
    reference: str,
    anatomies: Mapping[str, Anatomy],
    layer_map: Mapping[int, int] | None = None,
) -> list[Subject]:
    """What each of several checkpoints has in the place of each tensor of one of them.

    Args:
        reference: the role of the checkpoint whose tensors are looked up in all others.
        anatomies: by role.
        layer_map: per layer of the reference's main stacks the layer of the others that it is; those
            that it does not name have no counterpart. None: each is the one of its number.

    Returns:
        A subject for each tensor of the reference, in its order; then one for each tensor of
        another checkpoint that nothing in the reference corresponds to.

    Raises:
        InputRefused: names that can be aligned in several ways, or in none although their ends
            agree.
    """
    ours = anatomies[reference]
    matchers = {
        role: Matcher(reference, ours, role, theirs, layer_map)
        for role, theirs in anatomies.items() if role != reference
    }  # fmt: skip
    subjects = []
    for tensor in ours.tensors.values():
        views = tuple(ours.views(tensor))
        partners = {role: matcher.partner(tensor, views) for role, matcher in matchers.items()}
        subjects.append(Subject(reference, tensor, ours.place(tensor), views, partners))
    for role, matcher in matchers.items():
        theirs = anatomies[role]
        for tensor in theirs.tensors.values():
            if tensor.name not in matcher.used:
                views = tuple(theirs.views(tensor))
                subjects.append(Subject(role, tensor, theirs.place(tensor), views, {}))
    return subjects


def alignment_notes(subjects: Iterable[Subject]) -> Iterator[str]:
    """How names that differ were aligned, in a sentence for each prefix and kind of module."""
    renamed: dict[tuple[str, str, str], str] = {}
    modules: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for subject in subjects:
        ours = subject.tensor.name
        for role, partner in subject.partners.items():
            if partner.tensor is None or partner.how not in ("prefix", "module", "tie"):
                continue
            if partner.how == "tie":
                yield f"{spelled(role)} ties its head: {partner.tensor.name} stands for {ours}"
                continue
            theirs = partner.tensor.name
            if partner.how == "module":
                modules.setdefault((subject.role, role), []).append((ours, theirs))
                continue
            mine, other = differing_prefixes(ours, theirs)
            sentence = f"{spelled(subject.role)} {mine!r}* is {spelled(role)} {other!r}*"
            renamed.setdefault((role, mine, other), f"names aligned: {sentence}")
    yield from renamed.values()
    for pairs in modules.values():
        ours, theirs = pairs[0]
        yield f"names aligned: {counted(len(pairs), 'tensor')} like {ours} is {theirs}"
