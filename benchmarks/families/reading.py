"""uvmerge's reading of a saved family, compared with the truth of its module tree.

`read` is the only function that knows uvmerge; everything else compares plain data.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .ties import pattern

LABELS = ("module", "ends", "head", "tied")  # what is edited does not change with these
MAPS = ("linear", "expert", "flat experts")
EITHER = ("blocks", "recurrent")  # linear maps of another kind: edited, or named as left alone


@dataclass(frozen=True)
class Read:
    """How uvmerge reads one tensor; `parts` are (start, stop, step) of each expert's matrices."""

    stack: str | None
    layer: int | None
    module: str
    is_matrix: bool
    transposed: bool = False
    experts: int | None = None
    parts: tuple[tuple[int, int, int], ...] = ()
    expert: int | None = None


@dataclass(frozen=True)
class Reading:
    """How uvmerge reads a checkpoint.

    Attributes:
        stacks: depth of each stack by its name.
        default: names of the stacks that operations work on unless told otherwise.
        tied: sets of names that are one tensor, by the table of uvmerge.
        head_is_embeddings: whether the embeddings serve as the head.
        left_alone: tensors that it names as not edited.
        notes: sentences about what the config contradicts.
    """

    tensors: dict[str, Read]
    stacks: dict[str, int]
    default: list[str]
    tied: list[frozenset[str]]
    head_is_embeddings: bool
    left_alone: frozenset[str]
    notes: list[str]


@dataclass
class Disagreement:
    """Tensors of one family that are read differently in one way."""

    category: str
    true: str
    read: str
    area: str  # "language" or the kind of tower
    named: bool  # whether the reading itself names the tensors as left alone
    tensors: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As JSON data, with three tensors as examples."""
        rest = {"tensors": len(self.tensors), "examples": self.tensors[:3]}
        own = {k: getattr(self, k) for k in ("category", "true", "read", "area", "named")}
        return own | rest


def read(folder: Path) -> Reading:
    """uvmerge's reading of the checkpoint in `folder`; an error of uvmerge where it refuses it."""
    from uvmerge.checkpoint.anatomy import Anatomy
    from uvmerge.checkpoint.folder import Checkpoint
    from uvmerge.checkpoint.tie_table import tied_sets
    from uvmerge.checkpoint.ties import is_tied

    with Checkpoint.open(folder) as checkpoint:
        anatomy = Anatomy(checkpoint)
        tensors = {}
        for tensor in checkpoint.tensors.values():
            place, views = anatomy.place(tensor), anatomy.views(tensor)
            stack = None if place.layer is None else place.stack
            key = anatomy.expert_key(views[0]) if place.is_matrix else None
            fused = views[0].expert is not None
            parts = (v.part for v in views if v.expert == 0 and v.part is not None)
            tensors[tensor.name] = Read(
                stack=stack,
                layer=place.layer,
                module=place.module,
                is_matrix=place.is_matrix,
                transposed=views[0].transposed,
                experts=len({v.expert for v in views}) if fused else None,
                parts=tuple(parts),
                expert=None if fused or key is None else key[1],
            )
        return Reading(
            tensors=tensors,
            stacks={stack.name: stack.depth for stack in anatomy.stacks.all},
            default=[stack.name for stack in anatomy.main],
            tied=tied_sets(checkpoint.config, tensors),
            head_is_embeddings=is_tied(anatomy),
            left_alone=frozenset(tensor.name for tensor in anatomy.non_matrices()),
            notes=list(anatomy.notes),
        )


def stored_apart(truth: dict[str, Any]) -> frozenset[str]:
    """Tensors of stacks that no name tells to be there.

    transformers saves some elsewhere (the queries of Inkling's residuals), and of a stack that is
    tied to another one nothing but buffers.
    """
    stacks = {stack["name"]: stack for stack in truth["stacks"]}
    own = {name: t for name, t in truth["tensors"].items() if t.get("stack") is not None}
    filled = {t["stack"] for t in own.values() if t["kind"] not in ("buffer", "vector")}
    apart = set()
    for name, tensor in own.items():
        stack = stacks[tensor["stack"]]
        prefix = stack["saved"] if len(stack["lists"]) == 1 else None
        outside = prefix is not None and not name.startswith(f"{prefix}.")
        if outside or tensor["stack"] not in filled:
            apart.add(name)
    return frozenset(apart)


class Comparison:
    """One family's reading beside its truth."""

    def __init__(self, folder: Path) -> None:
        self.truth = json.loads((folder / "truth.json").read_text())
        self.reading = read(folder)
        self.agreements: Counter[str] = Counter()
        self._found: dict[tuple[Any, ...], Disagreement] = {}
        self._stacks = {stack["name"]: stack for stack in self.truth["stacks"]}
        self._names = self._stack_names()
        apart = stored_apart(self.truth)
        for name, true in self.truth["tensors"].items():
            if true.get("stack") is None:
                self._outside(name, true, self.reading.tensors[name])
            elif name not in apart:
                self._inside(name, true, self.reading.tensors[name])
        self._defaults()
        self._tied()

    @property
    def disagreements(self) -> list[Disagreement]:
        """All of them, the most tensors first."""
        return sorted(self._found.values(), key=lambda d: -len(d.tensors))

    @property
    def status(self) -> str:
        """`right`, or the gravest kind of disagreement: `wrong`, `tower`, `labels`, `named`."""
        grave = [d for d in self.disagreements if not d.named]
        wrong = [d for d in grave if d.category not in LABELS]
        if any(d.area == "language" for d in wrong):
            return "wrong"
        if wrong:
            return "tower"
        return "labels" if grave else "named" if self.disagreements else "right"

    def _area(self, stack: str) -> str:
        """`language`, or the kind of tower."""
        kind = self._stacks[stack]["kind"]
        speech = kind == "audio" and self.truth["encoder_decoder"] and stack in self.truth["main"]
        return "language" if kind.startswith("text") or speech else kind

    def _stack_names(self) -> dict[str, str | None]:
        """For each true stack the name under which most of its tensors are read."""
        votes: dict[str, Counter[str | None]] = defaultdict(Counter)
        for name, true in self.truth["tensors"].items():
            if true.get("stack") is not None:
                votes[true["stack"]][self.reading.tensors[name].stack] += 1
        return {stack: votes[stack].most_common(1)[0][0] for stack in votes}

    def _say(self, category: str, name: str, area: str, true: Any, got: Any) -> None:
        if true == got:
            self.agreements[category] += 1
            return
        named = name in self.reading.left_alone and category == "matrix"
        key = (category, str(true), str(got), area, named)
        self._found.setdefault(key, Disagreement(*key)).tensors.append(name)

    def _outside(self, name: str, true: dict[str, Any], got: Read) -> None:
        self._say("stack", name, self._area_around(name), None, got.stack and f"in {got.stack}")
        if true.get("ends") and len(true["shape"]) == 2:
            own, fits = " and ".join(true["ends"]), got.module in true["ends"]
            self._say("ends", name, "language", own, own if fits else got.module)

    def _area_around(self, name: str) -> str:
        """The area of the stack with which a name shares its first words."""
        best, area = 0, "language"
        for stack in self.truth["stacks"]:
            saved = stack["saved"] or stack["name"]
            words = zip(name.split("."), saved.split("."))
            common = next((i for i, (a, b) in enumerate(words) if a != b), 0)
            if common > best and not stack["inner"]:
                best, area = common, self._area(stack["name"])
        return area

    def _inside(self, name: str, true: dict[str, Any], got: Read) -> None:
        stack, area = true["stack"], self._area(true["stack"])
        numbered = self._stacks[stack]["saved"] is not None  # Dory saves halves of layers
        place = f"{stack} {true['layer'] if numbered else got.layer}"
        fits = got.stack == self._names[stack] and got.stack is not None
        got_place = f"{stack} {got.layer}" if fits else f"in {got.stack} {got.layer}"
        self._say("stack", name, area, place, got_place)
        if true["kind"] in EITHER:
            stated = got.is_matrix or name in self.reading.left_alone
            self._say("matrix", name, area, true["kind"], true["kind"] if stated else "in silence")
            return
        is_map = true["kind"] in MAPS and len(true["shape"]) in (2, 3) and 0 not in true["shape"]
        edited = got.is_matrix and got.layer is not None
        kind = true["kind"]
        words = {True: f"{kind}: a matrix", False: f"{kind}: no matrix"}
        self._say("matrix", name, area, words[is_map], words[edited])
        if is_map and edited:
            self._matrix(name, area, true, got)
        elif kind == "norm":
            self._say("module", name, area, "norm", got.module)

    def _matrix(self, name: str, area: str, true: dict[str, Any], got: Read) -> None:
        if "in_out" in true and true["shape"][-1] != true["shape"][-2]:
            words = {True: "(in, out)", False: "(out, in)"}
            self._say("orientation", name, area, words[true["in_out"]], words[got.transposed])
        module = {"experts": "mlp"}.get(true["module"], true["module"])
        if module not in (None, "other"):
            fits = got.module in {module, *true.get("also", ())}
            self._say("module", name, area, module, module if fits else got.module)
        if "expert" in true:
            own = None if got.expert is None else got.expert % true["experts"]
            self._say("experts", name, area, true["expert"], own)
        elif "experts" in true:
            parts = {"halves": 1, "alternating": 2}.get(true.get("parts", ""))
            own_parts = next((step for _, _, step in got.parts), None)
            self._say(
                "experts",
                name,
                area,
                _words(true["experts"], parts),
                _words(got.experts, own_parts),
            )

    def _defaults(self) -> None:
        """The stacks worked on by default, and their depths."""
        main = {str(self._names.get(name)): self._stacks[name] for name in self.truth["main"]}
        if any(stack["kind"].startswith("text") for stack in main.values()):
            towers = {
                str(self._names.get(name)) for name, stack in self._stacks.items()
                if self._area(name) != "language" and not stack["inner"]
            }  # fmt: skip
            if self.truth["encoder_decoder"] and len(main) == 1:  # its encoder sees, or listens
                towers = {name for name in towers if "encoder" not in name}
            for name in sorted(towers - set(main)):
                default = name in self.reading.default
                self._say(
                    "default", name, "language", "left out", "worked on" if default else "left out"
                )
        for name, stack in main.items():
            area = self._area(stack["name"])
            default = name in self.reading.default
            self._say("default", name, area, "worked on", "worked on" if default else "left out")
            if default and stack["saved"] is not None:
                self._say("default", name, area, stack["depth"], self.reading.stacks[name])

    def _tied(self) -> None:
        """Sets of names that are one tensor, and whether the head is one with the embeddings."""
        # Of names that differ in numbers alone, one that is stored does not tell the others.
        true = {frozenset(t["saved"]) for t in self.truth["tied"] if len(pattern(t["saved"])) > 1}
        for names in true | set(self.reading.tied):
            words = {True: "one tensor", False: "several"}
            row, got = " = ".join(sorted(names)), names in self.reading.tied
            self._say("tied", row, "language", words[names in true], words[got])
        both = [t for t in self.truth["tensors"].values() if len(t.get("ends", ())) > 1]
        if any(self._area(name) == "language" for name in self.truth["main"]):
            words = {True: "tied", False: "apart"}
            got = self.reading.head_is_embeddings
            self._say("head", "head and embeddings", "language", words[bool(both)], words[got])


def _words(experts: int | None, step: int | None) -> str:
    parts = {None: "whole", 1: "gate and up in halves", 2: "gate and up alternating"}
    return f"{experts} experts, {parts[step]}"


def compare(folder: Path) -> dict[str, Any]:
    """Status, agreements by category and disagreements of one family, as JSON data."""
    try:
        comparison = Comparison(folder)
    except Exception as error:
        text = " ".join(str(error).split())
        return {"status": "refused", "reason": f"{type(error).__name__}: {text[:300]}"}
    return {
        "status": comparison.status,
        "agreements": dict(comparison.agreements),
        "disagreements": [d.record() for d in comparison.disagreements],
        "notes": comparison.reading.notes,
    }
