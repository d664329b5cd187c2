"""Which tensors of several checkpoints correspond, and why some do not. Pure."""

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
    """A tensor of one checkpoint, and its counterpart in each of the other checkpoints.

    Attributes:
        role: role of the checkpoint that stores the tensor.
        tensor: the tensor itself.
        place: where the tensor stands in the model.
        views: the matrices inside the tensor, in the order of their rows; a tensor that is no
            matrix has one view, of the whole.
        partners: the counterparts, by role; empty where the reference has no counterpart.
    """

    role: str
    tensor: Tensor
    place: Place
    views: tuple[View, ...]
    partners: Mapping[str, Partner]

    def why(self, roles: Iterable[str]) -> tuple[str, str]:
        """The first of `roles` whose partner takes no part, with its `Partner.why`; or ("", "")."""
        whys = ((role, self.partners[role].why) for role in roles)
        return next(((role, why) for role, why in whys if why), ("", ""))


def correspond(
    reference: str,
    anatomies: Mapping[str, Anatomy],
    layer_map: Mapping[int, int] | None = None,
) -> list[Subject]:
    """Find the counterparts of one checkpoint's tensors in other checkpoints.

    Args:
        reference: role of the checkpoint whose tensors are looked up in all others.
        anatomies: the anatomy of each checkpoint, by role.
        layer_map: for a layer of the reference's main stacks, the number of the corresponding layer
            in the other checkpoints; a layer that the map does not name has no counterpart. Without
            a map, layers of the same number correspond.

    Returns:
        One subject for each tensor of the reference, in file order; then one for each tensor of
        another checkpoint that corresponds to no tensor of the reference.

    Raises:
        InputRefused: names can be aligned in several ways; or in none, although their ends agree.
    """
    ours = anatomies[reference]
    matchers = {
        role: Matcher(reference, ours, role, theirs, layer_map)
        for role, theirs in anatomies.items()
        if role != reference
    }
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
    """One sentence for each prefix, kind of module or tied head by which names were aligned.

    A sentence also says that experts are stored fused on one side and apart on the other.
    """
    renamed: dict[tuple[str, str, str], str] = {}
    experts: dict[tuple[str, str], int] = {}  # (who has them fused, who apart): matrices
    modules: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for subject in subjects:
        ours = subject.tensor.name
        for role, partner in subject.partners.items():
            if partner.how == "expert" and not partner.why:
                is_fused = any(view.expert is not None for view in subject.views)
                pair = (subject.role, role) if is_fused else (role, subject.role)
                experts[pair] = experts.get(pair, 0) + len(subject.views)
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
    for (own, role), pairs in modules.items():
        ours, theirs = pairs[0]
        alike = f" ({counted(len(pairs), 'tensor')} alike)" if len(pairs) > 1 else ""
        yield f"names aligned: {spelled(own)} {ours} is {spelled(role)} {theirs}{alike}"
    for (fused, apart), count in experts.items():
        told = f"fused in {spelled(fused)}, apart in {spelled(apart)}"
        yield f"experts aligned: {told} ({counted(count, 'expert matrix')})"
