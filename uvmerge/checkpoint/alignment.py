"""Which tensor of the base corresponds to which tensor of the fine-tuned checkpoint. Pure.

Names are compared as they are. Where they differ by one prefix (`model.` against
`model.language_model.`), or one side stores its experts fused and the other apart, the two are
aligned if there is exactly one way to do it; otherwise nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NoReturn

from ..errors import InputRefused, counted, listed
from .anatomy import Anatomy, View
from .folder import Tensor

MOST_CANDIDATES = 20  # prefixes worth trying; a real pair has one or two


class Alignment:
    """The correspondence from fine-tuned names to base names.

    Attributes:
        rename: (prefix in the fine-tuned names, prefix in the base names) where they differ.
        notes: what was aligned, for the plan.
    """

    def __init__(self, base: Anatomy, finetuned: Anatomy) -> None:
        self.base, self.finetuned = base, finetuned
        self.notes: list[str] = []
        self.rename = self._find_rename()
        if self.rename:
            ours, theirs = self.rename
            self.notes.append(f"names aligned: fine-tuned {ours!r}* is base {theirs!r}*")
        self._twins = self._find_twins()
        for name, twin in list(self._twins.items())[:1]:
            self.notes.append(
                f"names aligned: {counted(len(self._twins), 'tensor')} like {name} is {twin}"
            )

    def tensor(self, tensor: Tensor) -> Tensor | None:
        """The base tensor that corresponds to `tensor` of the fine-tuned checkpoint as a whole."""
        return self.base.tensors.get(self._twins.get(tensor.name) or self._renamed(tensor.name))

    def view(self, view: View) -> View | None:
        """The base matrix that corresponds to a matrix of the fine-tuned checkpoint."""
        ours = self.finetuned.tensors[view.tensor]
        partner = self.tensor(ours)
        if partner is not None and len(partner.shape) == len(ours.shape):
            return self._views_of(partner).get((view.expert, view.part and view.part[0]))
        key = self.finetuned.expert_key(view)
        return None if key is None else self._experts.get(key)

    def only_in_base(self) -> list[str]:
        """Names of base tensors that nothing in the fine-tuned checkpoint corresponds to."""
        if not self.rename and self.base.tensors.keys() <= self.finetuned.tensors.keys():
            return []
        used: set[str] = set()
        for tensor in self.finetuned.tensors.values():
            partner = self.tensor(tensor)
            if partner is not None:
                used.add(partner.name)
            elif self.finetuned.place(tensor).is_matrix:
                found = (self.view(view) for view in self.finetuned.views(tensor))
                used.update(view.tensor for view in found if view is not None)
        return [name for name in self.base.tensors if name not in used]

    def _renamed(self, name: str) -> str:
        ours, theirs = self.rename or ("", "")
        exact = name in self.base.tensors or not name.startswith(ours)
        return name if exact else theirs + name[len(ours) :]

    def _find_twins(self) -> dict[str, str]:
        """Layer tensors whose parent module has another name on the other side.

        Mixtral's router is `block_sparse_moe.gate` with experts apart and `mlp.gate` with experts
        fused. Matched by layer, last two parts of the name and shape, where that is unambiguous.
        """
        ours = self._leftovers(
            self.finetuned, lambda name: self._renamed(name) in self.base.tensors
        )
        if not ours:
            return {}
        taken = {self._renamed(name) for name in self.finetuned.tensors}
        theirs = self._leftovers(self.base, taken.__contains__)
        return {
            names[0]: theirs[key][0]
            for key, names in ours.items()
            if len(names) == 1 and len(theirs.get(key, ())) == 1
        }

    @staticmethod
    def _leftovers(
        anatomy: Anatomy, matched: Callable[[str], bool]
    ) -> dict[tuple[object, ...], list[str]]:
        found: dict[tuple[object, ...], list[str]] = {}
        for tensor in anatomy.tensors.values():
            layer = anatomy.place(tensor).layer
            if layer is not None and ".experts." not in tensor.name and not matched(tensor.name):
                key = layer, *tensor.name.split(".")[-2:], tensor.shape
                found.setdefault(key, []).append(tensor.name)
        return found

    def _views_of(self, tensor: Tensor) -> dict[tuple[int | None, int | None], View]:
        if tensor.name not in self._views:
            views = self.base.views(tensor)
            self._views[tensor.name] = {(v.expert, v.part and v.part[0]): v for v in views}
        return self._views[tensor.name]

    @cached_property
    def _views(self) -> dict[str, dict[tuple[int | None, int | None], View]]:
        return {}

    @cached_property
    def _experts(self) -> dict[tuple[int, int, str], View]:
        """Every expert's matrix of the base by (layer, expert, role)."""
        experts: dict[tuple[int, int, str], View] = {}
        for tensor in self.base.tensors.values():
            if ".experts." in tensor.name and self.base.place(tensor).is_matrix:
                for view in self.base.views(tensor):
                    key = self.base.expert_key(view)
                    if key is not None:
                        experts[key] = view
        return experts

    def _find_rename(self) -> tuple[str, str] | None:
        """The one prefix substitution that matches one side completely, or None for none needed."""
        ours, theirs = self.finetuned.tensors, self.base.tensors
        layered = [t for t in ours.values() if self._is_layer_matrix(self.finetuned, t)]
        if not layered or any(t.name in theirs for t in layered):
            return None
        by_tail: dict[str, list[str]] = {}
        for name in theirs:
            by_tail.setdefault(_tail(name), []).append(name)
        candidates = {
            _differing_prefixes(layered[0].name, name)
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

    def _is_total(self, rename: tuple[str, str], layered: Iterable[Tensor]) -> bool:
        """Whether `rename` finds a partner of the same shape for every layer matrix of one side."""
        ours, theirs = rename
        partners = {}
        for tensor in layered:
            if tensor.name.startswith(ours):
                partner = self.base.tensors.get(theirs + tensor.name[len(ours) :])
                if partner is not None and partner.shape == tensor.shape:
                    partners[tensor.name] = partner.name
        if len(partners) == len(list(layered)):
            return True
        wanted = {t.name for t in self.base.tensors.values() if self._is_layer_matrix(self.base, t)}
        return bool(wanted) and wanted <= set(partners.values())

    @staticmethod
    def _is_layer_matrix(anatomy: Anatomy, tensor: Tensor) -> bool:
        place = anatomy.place(tensor)
        return place.layer is not None and place.is_matrix and ".experts." not in tensor.name

    def _unmatched(self, what: str, ours: str) -> InputRefused:
        theirs = next(
            (t.name for t in self.base.tensors.values() if self._is_layer_matrix(self.base, t)),
            next(iter(self.base.tensors), "nothing"),
        )
        return InputRefused(
            "base and fine-tuned", f"their layers {what}: fine-tuned has {ours}, base has {theirs}",
            "Check that both are checkpoints of one model.",
        )  # fmt: skip


def _tail(name: str) -> str:
    """`layers.0.self_attn.q_proj.weight` of `model.layers.0.self_attn.q_proj.weight`."""
    segments = name.split(".")
    at = next((i for i, segment in enumerate(segments) if segment.isdecimal()), 1)
    return ".".join(segments[max(at - 1, 0) :])


def _differing_prefixes(ours: str, theirs: str) -> tuple[str, str]:
    """The prefixes in which two names differ, cut at a dot, without their common end."""
    a, b = ours.split("."), theirs.split(".")
    while a and b and a[-1] == b[-1]:
        a.pop(), b.pop()
    return "".join(f"{s}." for s in a), "".join(f"{s}." for s in b)


def refuse_ungathered(where: str, names: Sequence[str]) -> NoReturn:
    """Refuse tensors that hold no data where their counterparts do."""
    raise InputRefused(
        where, f"{listed(names, 'tensor')} hold no data: saved under DeepSpeed ZeRO-3 without"
        " gathering the parameters",
        "Run zero_to_fp32.py on the DeepSpeed checkpoint, or save with"
        " stage3_gather_16bit_weights_on_model_save.",
    )  # fmt: skip
