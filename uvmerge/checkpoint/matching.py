"""Find what another checkpoint has in place of each tensor: by name, prefix, parent, expert. Pure.

Names are compared as they are stored. The names of two checkpoints may also differ by one prefix
(`model.` against `model.language_model.`), in words of wrapping modules, or because one checkpoint
stores its experts fused and the other apart. Such names are aligned if there is exactly one way to
align them; otherwise nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import InputRefused
from .anatomy import Anatomy, View
from .folder import Tensor
from .header import FLOATS
from .roles import spelled
from .ties import stands_for_head

_WRAPPING = {"model", "language_model", "text_model", "base_model", "transformer", "llm"}
_SPELT = (  # ends of names in old checkpoints, and what torch and transformers write now
    (".gamma", ".weight"),
    (".beta", ".bias"),
    (".weight_g", ".parametrizations.weight.original0"),
    (".weight_v", ".parametrizations.weight.original1"),
)
MOST_CANDIDATES = 20  # prefixes worth trying; a real pair has one or two
Part = tuple[int | None, int | None]  # (expert, first row of gate or up) in a fused tensor


@dataclass(frozen=True, slots=True)
class Partner:
    """The counterpart of a subject in another checkpoint.

    Attributes:
        tensor: the tensor that corresponds to the subject's tensor as a whole; None where there is
            none, or where one checkpoint stores its experts fused and the other apart.
        views: the counterpart of each view of the subject; None for a view without one.
        how: how the counterpart was found: `name`, `prefix`, `module` (another name of the parent, or
            another spelling), `expert`, `tie` (embeddings that serve as a head); empty where there
            is none.
        why: why subject and counterpart cannot be computed with together: `missing`; `empty` (only
            one of the two holds data); `taken` (the counterpart is that of another tensor);
            `shape`; `dtype` (dtypes differ, not all are floating point). Empty where they can be.
    """

    tensor: Tensor | None
    views: tuple[View | None, ...]
    how: str
    why: str


class Matcher:
    """Finds the partners that one other checkpoint has for the tensors of the reference.

    Args:
        our_role, ours: role and anatomy of the reference.
        their_role, theirs: role and anatomy of the other checkpoint.
        layer_map: see `alignment.correspond`.

    Attributes:
        used: names of the other checkpoint's tensors that correspond to a tensor of the reference.
    """

    def __init__(
        self,
        our_role: str,
        ours: Anatomy,
        their_role: str,
        theirs: Anatomy,
        layer_map: Mapping[int, int] | None,
    ) -> None:
        self._layer_map = layer_map
        self._as_deep = _stacks_as_deep(ours, theirs)
        self.our_role, self.their_role = our_role, their_role
        self.ours, self.theirs = ours, theirs
        self.used: set[str] = set()
        self._taken: set[View] = set()
        self._views: dict[str, dict[Part, View]] = {}
        self._rename = self._find_rename()
        self._renamed_parents: dict[str, str] = {}
        self._rewrapped: dict[str, str] = {}
        if not ours.tensors.keys() <= theirs.tensors.keys():
            self._renamed_parents = self._find_renamed_parents()
            self._rewrapped = self._find_rewrapped()

    def partner(self, tensor: Tensor, views: Sequence[View]) -> Partner:
        """What the other checkpoint has in place of `tensor`, whose views are `views`."""
        name, how = self._counterpart(tensor.name)
        whole = self.theirs.tensors.get(name)
        if whole is None and self.ours.place(tensor).module == "head":
            whole, how = stands_for_head(self.theirs, tensor.shape), "tie"
        found = tuple(self._view(tensor, view, whole) for view in views)
        self.used.update(view.tensor for view in found if view is not None)
        if whole is None:
            how = "expert" if any(found) else ""
        else:
            self.used.add(whole.name)
        why = self._why_not(tensor, views, whole, found, how)
        if not why and how != "tie":
            self._taken.update(view for view in found if view is not None)
        return Partner(whole, found, how, why)

    def _why_not(
        self,
        tensor: Tensor,
        views: Sequence[View],
        whole: Tensor | None,
        found: Sequence[View | None],
        how: str,
    ) -> str:
        if whole is not None and (tensor.size_bytes == 0) != (whole.size_bytes == 0):
            return "empty"
        if None in found:
            return "missing"
        partners = [view for view in found if view is not None]
        if how != "tie" and not self._layer_map and self._is_taken(tensor, whole, partners):
            return "taken"
        if any(view.shape != partner.shape for view, partner in zip(views, partners)):
            return "shape"
        dtypes = {tensor.dtype, *(self.theirs.tensors[view.tensor].dtype for view in partners)}
        return "" if dtypes <= set(FLOATS) or len(dtypes) == 1 else "dtype"

    def _is_taken(self, tensor: Tensor, whole: Tensor | None, partners: Sequence[View]) -> bool:
        """Whether the counterpart belongs to another tensor: its namesake, or one seen before."""
        namesake = (
            whole is not None and whole.name != tensor.name and whole.name in self.ours.tensors
        )
        return namesake or not self._taken.isdisjoint(partners)

    def _view(self, tensor: Tensor, view: View, whole: Tensor | None) -> View | None:
        """The other checkpoint's matrix that corresponds to a view of `tensor`."""
        if whole is not None and len(whole.shape) == len(tensor.shape):
            if whole.name not in self._views:
                theirs = self.theirs.views(whole)
                self._views[whole.name] = {(v.expert, v.part and v.part[0]): v for v in theirs}
            return self._views[whole.name].get((view.expert, view.part and view.part[0]))
        key = self.ours.expert_key(view)
        return None if key is None else self._experts.get(key)

    @cached_property
    def _experts(self) -> dict[tuple[int, int, str], View]:
        """Every expert's matrix of the other checkpoint by (layer, expert, role)."""
        experts: dict[tuple[int, int, str], View] = {}
        for tensor in self.theirs.tensors.values():
            if ".experts." in tensor.name and self.theirs.place(tensor).is_matrix:
                for view in self.theirs.views(tensor):
                    key = self.theirs.expert_key(view)
                    if key is not None:
                        experts[key] = view
        return experts

    def _counterpart(self, name: str) -> tuple[str, str]:
        """The name that our tensor `name` has in the other checkpoint, and how it was found."""
        if self._layer_map is not None:
            name = self._mapped(name, self._layer_map)
        if name in self._renamed_parents:
            return self._renamed_parents[name], "module"
        if name in self._rewrapped:
            other = self._rewrapped[name]
            return other, "prefix" if _tail(name) == _tail(other) else "module"
        ours, theirs = self._rename or ("", "")
        if self._rename is None or name in self.theirs.tensors or not name.startswith(ours):
            return name, "name"
        return theirs + name[len(ours) :], "prefix"

    def _mapped(self, name: str, layers: Mapping[int, int]) -> str:
        """`name` with its layer's number mapped by `layers`; empty where `layers` lacks it."""
        place = self.ours.place(self.ours.tensors[name])
        if place.layer is None or not place.is_main or place.stack in self._as_deep:
            return name
        there = layers.get(place.layer)
        return "" if there is None else name.replace(f".{place.layer}.", f".{there}.", 1)

    def _find_renamed_parents(self) -> dict[str, str]:
        """The other name of each layer tensor whose parent module is called differently there.

        Mixtral's router is `block_sparse_moe.gate` where experts are stored apart, and `mlp.gate`
        where they are fused. Such tensors are matched by layer, last two parts of the name, and
        shape, where only one tensor on each side fits.
        """
        known = {name: self._counterpart(name)[0] for name in self.ours.tensors}
        ours = _leftovers(self.ours, lambda name: known[name] in self.theirs.tensors)
        if not ours:
            return {}
        return _one_to_one(ours, _leftovers(self.theirs, set(known.values()).__contains__))

    def _find_rewrapped(self) -> dict[str, str]:
        """The other name of each tensor whose names differ only in wrapping modules or spelling.

        Versions of transformers save the towers of a model under different wrapping modules
        (`model.`, `language_model.`), and older ones spell the ends of some names in another way.
        Names are matched where each side has one such name.
        """
        known = {name: self._counterpart(name)[0] for name in self.ours.tensors}
        taken = set(known.values())
        ours: dict[tuple[object, ...], list[str]] = {}
        theirs: dict[tuple[object, ...], list[str]] = {}
        for name, tensor in self.ours.tensors.items():
            if known[name] not in self.theirs.tensors:
                ours.setdefault((_core(name), tensor.shape), []).append(name)
        for name, tensor in self.theirs.tensors.items() if ours else ():
            if name not in taken:
                theirs.setdefault((_core(name), tensor.shape), []).append(name)
        return _one_to_one(ours, theirs)

    def _find_rename(self) -> tuple[str, str] | None:
        """The one prefix substitution (ours, theirs) that matches one side completely.

        None where no substitution is needed, or where no name ends like ours.
        """
        ours, theirs = self.ours.tensors, self.theirs.tensors
        if any(name in theirs and _is_layer_matrix(self.ours, t) for name, t in ours.items()):
            return None
        layered = [t for t in ours.values() if _is_layer_matrix(self.ours, t)]
        if not layered:
            return None
        by_tail: dict[str, list[str]] = {}
        for name in theirs:
            by_tail.setdefault(_tail(name), []).append(name)
        candidates = {
            differing_prefixes(layered[0].name, name)
            for name in by_tail.get(_tail(layered[0].name), [])
        }
        if len(candidates) > MOST_CANDIDATES:
            raise self._unmatched(f"might correspond in {len(candidates):,} ways", layered[0].name)
        total = sorted(c for c in candidates if self._is_total(c, layered))
        if len(total) == 1:
            return total[0]
        if total:
            ways = "; ".join(f"{ours_!r} → {theirs_!r}" for ours_, theirs_ in total)
            raise self._unmatched(f"correspond in {len(total)} ways ({ways})", layered[0].name)
        if candidates:
            raise self._unmatched("have different names or shapes", layered[0].name)
        return None

    def _is_total(self, rename: tuple[str, str], layered: Sequence[Tensor]) -> bool:
        """Whether `rename` gives every layer matrix of one side a partner of the same shape."""
        ours, theirs = rename
        partners = {}
        for tensor in layered:
            if tensor.name.startswith(ours):
                partner = self.theirs.tensors.get(theirs + tensor.name[len(ours) :])
                if partner is not None and partner.shape == tensor.shape:
                    partners[tensor.name] = partner.name
        if len(partners) == len(layered):
            return True
        wanted = {t.name for t in self.theirs.tensors.values() if _is_layer_matrix(self.theirs, t)}
        return bool(wanted) and wanted <= set(partners.values())

    def _unmatched(self, what: str, ours: str) -> InputRefused:
        theirs = next(
            (t.name for t in self.theirs.tensors.values() if _is_layer_matrix(self.theirs, t)),
            next(iter(self.theirs.tensors), "nothing"),
        )
        mine, other = spelled(self.our_role), spelled(self.their_role)
        return InputRefused(
            f"{other} and {mine}",
            f"their layers {what}: {mine} has {ours}, {other} has {theirs}",
            "Check that both are checkpoints of one model.",
        )


def _stacks_as_deep(ours: Anatomy, theirs: Anatomy) -> set[str]:
    """Names of the main stacks that have one depth on both sides, where another one has two.

    A layer map is for the others.
    """
    depths = [{stack.name: stack.depth for stack in each.main} for each in (ours, theirs)]
    same = {name for name, depth in depths[0].items() if depths[1].get(name) == depth}
    return same if same < depths[0].keys() else set()


def _is_layer_matrix(anatomy: Anatomy, tensor: Tensor) -> bool:
    place = anatomy.place(tensor)
    in_layer = place.layer is not None and place.is_main
    return in_layer and place.is_matrix and ".experts." not in tensor.name


def _leftovers(
    anatomy: Anatomy, matched: Callable[[str], bool]
) -> dict[tuple[object, ...], list[str]]:
    """Names of the layer tensors that are not `matched`, by layer, end of the name, and shape."""
    found: dict[tuple[object, ...], list[str]] = {}
    for tensor in anatomy.tensors.values():
        layer = anatomy.place(tensor).layer
        if layer is not None and ".experts." not in tensor.name and not matched(tensor.name):
            key = layer, *tensor.name.split(".")[-2:], tensor.shape
            found.setdefault(key, []).append(tensor.name)
    return found


def _one_to_one(
    ours: Mapping[tuple[object, ...], list[str]], theirs: Mapping[tuple[object, ...], list[str]]
) -> dict[str, str]:
    """The pairs of names that are alone under their key on both sides."""
    return {
        names[0]: theirs[key][0]
        for key, names in ours.items()
        if len(names) == 1 and len(theirs.get(key, ())) == 1
    }


def _core(name: str) -> str:
    """A name without the words of wrapping modules, its end spelt as it is today."""
    name = next((name.removesuffix(old) + new for old, new in _SPELT if name.endswith(old)), name)
    return ".".join(s for s in name.split(".") if s not in _WRAPPING)


def _tail(name: str) -> str:
    """`layers.0.self_attn.q_proj.weight` of `model.layers.0.self_attn.q_proj.weight`."""
    segments = name.split(".")
    at = next((i for i, segment in enumerate(segments) if segment.isdecimal()), 1)
    return ".".join(segments[max(at - 1, 0) :])


def differing_prefixes(ours: str, theirs: str) -> tuple[str, str]:
    """What remains of two names without their common end, cut at a dot."""
    a, b = ours.split("."), theirs.split(".")
    while a and b and a[-1] == b[-1]:
        a.pop(), b.pop()
    return "".join(f"{s}." for s in a), "".join(f"{s}." for s in b)
