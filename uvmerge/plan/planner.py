"""Recipe + headers → a frozen plan of what every byte of the output will be.

Pure: no weight is read. Operations are tried out on outlines that know only a shape; one that
returns an operand untouched (`k = 0`, `alpha 0`, `reset-layers`) becomes a copy of bytes, one that
asks for values becomes an edit. Most refusals happen here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from ..checkpoint import header
from ..checkpoint.alignment import Alignment, refuse_ungathered
from ..checkpoint.anatomy import Anatomy, Place, View
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPES, FLOATS
from ..errors import InputRefused, RunFailed, UsageError, UvmergeError, counted, listed
from ..recipe.recipe import Recipe, RecipeStep
from ..spectral import Edited, Factors, Log, Matrix, Term, leading_count
from ..text import table
from .layout import OutputFile, layout

BASE, FINETUNED = "base", "finetuned"
# An estimate of an edit's working set, in units of one float64 matrix and of r × r float64.
_MATRIX_COPIES, _SQUARE_COPIES = 1.5, 6.0


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of an input: which checkpoint, where, and the dtype they hold."""

    checkpoint: str
    file: str
    offset: int
    size_bytes: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Block:
    """One operand pair: a matrix, or a tensor of another shape, with the steps that edit it.

    Attributes:
        finetuned, base: where its values are.
        start: which of the two the chain starts from.
        chain: indices of the recipe's steps that change it, in order.
        ranks: the k of each of them, where shape and options alone decide it.
    """

    finetuned: View
    base: View
    start: str
    chain: tuple[int, ...]
    ranks: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One contiguous stretch of the output: a whole tensor, or one expert of a fused tensor.

    Attributes:
        tensor: name of the output tensor.
        file, offset, size_bytes, dtype: where it goes and how it is stored.
        elements: shape of this stretch as it is stored.
        place: where the tensor stands in the model.
        copy: the bytes to copy (converted where the dtype differs), or None for an edit.
        blocks: what to compute, for an edit.
    """

    tensor: str
    file: str
    offset: int
    size_bytes: int
    dtype: str
    elements: tuple[int, ...]
    place: Place
    copy: Range | None
    blocks: tuple[Block, ...] = ()

    @property
    def action(self) -> str:
        """`copy`, `convert` (a copy in another dtype) or `edit`."""
        if self.copy is None:
            return "edit"
        return "copy" if self.copy.dtype == self.dtype else "convert"

    @property
    def changes(self) -> bool:
        """Whether the output may differ from the fine-tuned tensor in more than its dtype."""
        return self.copy is None or self.copy.checkpoint == BASE

    @property
    def matrix_bytes(self) -> int:
        """Working set of the edit on the CPU, estimated."""
        return max((_working_set(block) for block in self.blocks), default=0)

    @property
    def result_bytes(self) -> int:
        """Memory of one result while it is made: as it is stored, and its terms."""
        terms = sum(
            16 * sum(block.finetuned.shape) * max((k or 0 for k in block.ranks), default=0)
            for block in self.blocks if len(block.finetuned.shape) == 2
        )  # fmt: skip
        return self.size_bytes + terms

    @property
    def work(self) -> float:
        """Effort in arbitrary units, for the progress bar and for ordering."""
        return self.size_bytes * 1e-3 + sum(_effort(block) for block in self.blocks)


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        recipe: what was asked for.
        inputs: what identifies the two checkpoints.
        files: the weight files of the output.
        steps: in output order.
        index: a new index where the fine-tuned one does not fit any more, else None.
        notes: what the user should know.
    """

    recipe: Recipe
    inputs: dict[str, Any]
    files: tuple[OutputFile, ...]
    steps: tuple[Step, ...]
    index: dict[str, Any] | None
    notes: tuple[str, ...]

    @property
    def edits(self) -> list[Step]:
        return [step for step in self.steps if step.copy is None]

    @property
    def bytes_out(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def bytes_in(self) -> int:
        """Bytes read from both inputs."""
        return sum(s.size_bytes if s.copy else 2 * s.size_bytes for s in self.steps)

    @property
    def working_set_bytes(self) -> int:
        """Memory of the largest edit, estimated."""
        return max((step.matrix_bytes for step in self.steps), default=0)

    @property
    def needs_torch(self) -> bool:
        """Whether anything is computed or converted, rather than copied."""
        return any(step.action != "copy" for step in self.steps)

    @property
    def digest(self) -> str:
        """Identifies the plan: what is done to which inputs, and into which layout."""
        layout = [(file.name, file.digest) for file in self.files]
        material = json.dumps([self.recipe.as_data()["steps"], self.inputs, layout], sort_keys=True)
        return hashlib.sha256(material.encode()).hexdigest()[:16]

    def as_data(self) -> dict[str, Any]:
        """The plan as JSON-able data."""
        return {
            "recipe": self.recipe.as_data(),
            "inputs": self.inputs,
            "files": {file.name: file.size_bytes for file in self.files},
            "counts": self.counts(),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "working_set_bytes": self.working_set_bytes,
            "edits": {
                block.finetuned.label: {
                    "shape": list(block.finetuned.shape),
                    "steps": list(block.chain),
                    "k": list(block.ranks),
                }
                for step in self.edits
                for block in step.blocks
            },
            "reset": [s.tensor for s in self.steps if s.copy and s.copy.checkpoint == BASE],
            "notes": list(self.notes),
        }

    def as_table(self) -> str:
        """What will be changed, for people: the layers of one name on one line."""
        groups: dict[tuple[str, str, str, str], list[int]] = {}
        for step in self.steps:
            if not step.changes:
                continue
            name = step.tensor
            if step.place.layer is not None:
                name = name.replace(f".{step.place.layer}.", ".*.", 1)
            for block in step.blocks or (None,):
                shape = " × ".join(map(str, block.finetuned.shape if block else step.elements))
                ranks = ", ".join(self._rank_text(block)) if block else ""
                key = (name, "edit" if block else "reset", shape, ranks)
                groups.setdefault(key, []).append(step.place.layer or 0)
        rows = [(*key, len(layers)) for key, layers in groups.items()]
        return table(("tensor", "action", "shape", "k", "count"), rows, right="k count")

    def _rank_text(self, block: Block) -> Iterator[str]:
        """k of each step of a chain; `energy` where the values will decide it, `-` where none is."""
        for index, k in zip(block.chain, block.ranks, strict=True):
            by_energy = "energy" in self.recipe.steps[index].options
            yield str(k) if k is not None else "energy" if by_energy else "-"

    def counts(self) -> dict[str, int]:
        """How many matrices are edited, and tensors reset to the base or left alone."""
        changed = {step.tensor for step in self.steps if step.changes}
        return {
            "edited": sum(len(step.blocks) for step in self.edits),
            "reset": sum(1 for s in self.steps if s.copy and s.copy.checkpoint == BASE),
            "copied": len({step.tensor for step in self.steps} - changed),
        }


def build(
    recipe: Recipe,
    base: Checkpoint,
    finetuned: Checkpoint,
    *,
    max_shard_bytes: int | None = None,
    force: bool = False,
) -> Plan:
    """The plan for `recipe` on this pair, or `InputRefused`/`UsageError`.

    Args:
        max_shard_bytes: reshard the output; by default it mirrors the fine-tuned checkpoint.
        force: go on although hardly any selected tensor has a partner in the base.
    """
    planner = _Planner(recipe, base, finetuned)
    pieces = planner.pieces()
    planner.refuse_mismatches(force)
    files, places = layout(finetuned, recipe.dtype, max_shard_bytes)
    steps = tuple(
        replace(piece, file=places[piece.tensor][0], offset=places[piece.tensor][1] + piece.offset)
        for piece in pieces
    )
    _refuse_gaps(files, steps)
    index = None
    if len(files) > 1 and (recipe.dtype or max_shard_bytes or finetuned.index is None):
        metadata = {
            "total_parameters": sum(math.prod(t.shape) for t in finetuned.tensors.values()),
            "total_size": sum(step.size_bytes for step in steps),
        }
        index = {"metadata": metadata, "weight_map": {n: places[n][0] for n in sorted(places)}}
    inputs = {BASE: base.identity(), FINETUNED: finetuned.identity()}
    return Plan(recipe, inputs, files, steps, index, tuple(planner.notes()))


def _refuse_gaps(files: Sequence[OutputFile], steps: Sequence[Step]) -> None:
    """Fail unless header and steps cover every byte of every file exactly once."""
    reached = {file.name: len(file.header) for file in files}
    for step in sorted(steps, key=lambda step: step.offset):
        if step.size_bytes and step.offset != reached[step.file]:
            raise RunFailed(step.tensor, f"is planned at byte {step.offset:,} of {step.file}, where"
                            f" {reached[step.file]:,} was to come")  # fmt: skip
        reached[step.file] += step.size_bytes
    for file in files:
        if reached[file.name] != file.size_bytes:
            raise RunFailed(file.name, f"{reached[file.name]:,} of its {file.size_bytes:,} bytes"
                            " are planned")  # fmt: skip


def leave_alone(plan: Plan, names: Iterable[str], finetuned: Checkpoint) -> Plan:
    """`plan`, with the tensors in `names` copied from the fine-tuned checkpoint instead of edited."""
    names = set(names)
    starts: dict[str, int] = {}
    steps = []
    for step in plan.steps:
        begin = starts.setdefault(step.tensor, step.offset)
        if step.tensor in names and step.copy is None:
            tensor = finetuned.tensors[step.tensor]
            whole = header.size_bytes(step.dtype, tensor.shape)
            offset, size = (
                v * tensor.size_bytes // whole for v in (step.offset - begin, step.size_bytes)
            )
            source = Range(FINETUNED, tensor.file, tensor.offset + offset, size, tensor.dtype)
            step = replace(step, copy=source, blocks=())
        steps.append(step)
    note = f"NaN or Inf, left as fine-tuned: {listed(sorted(names), 'tensor')}"
    return replace(plan, steps=tuple(steps), notes=(*plan.notes, note))


class NeedsValues(Exception):
    """An operation asked an outline for numbers: it will have to be computed."""


class Outline:
    """An operand that knows its shape alone, and notes ranks in its log (see `spectral.Matrix`)."""

    def __init__(self, name: str, shape: tuple[int, ...], log: Log) -> None:
        self.name, self.shape, self.log = name, shape, log

    def rank(
        self, top: float | None = None, rank: int | None = None, energy: float | None = None
    ) -> int:
        if energy is not None:
            raise NeedsValues
        k = leading_count(min(self.shape), top=top, rank=rank)
        self.log.rank(k)
        return k

    @property
    def tensor(self) -> NoReturn:
        raise NeedsValues

    def top(self, k: int) -> Factors:
        raise NeedsValues

    tail = top

    def values(self) -> NoReturn:
        raise NeedsValues

    def plus(self, *terms: Term) -> NoReturn:
        raise NeedsValues

    def __sub__(self, other: Matrix) -> Outline:
        return Outline(f"{self.name} - {other.name}", self.shape, self.log)


class _Planner:
    """Walks the fine-tuned tensors once and decides each one's fate."""

    def __init__(self, recipe: Recipe, base: Checkpoint, finetuned: Checkpoint) -> None:
        self.recipe = recipe
        self.base, self.finetuned = Anatomy(base), Anatomy(finetuned)
        self.checkpoints = {BASE: base, FINETUNED: finetuned}
        self.alignment = Alignment(self.base, self.finetuned)
        self.dtype = DTYPES[recipe.dtype] if recipe.dtype else None
        self.selected = 0
        self.without_partner: list[str] = []
        self.lacking = 0  # of them, those inside the decoder layers
        self.wrong_shape: list[str] = []
        self.left_alone: list[str] = []
        self.only_finetuned: list[str] = []
        self.empty: dict[str, list[str]] = {BASE: [], FINETUNED: []}
        for step in recipe.steps:
            step.selection.check(self.finetuned.depth)

    def pieces(self) -> list[Step]:
        """Every output tensor as steps; `offset` still counts from the tensor's own start."""
        return [piece for t in self.finetuned.tensors.values() for piece in self._tensor(t)]

    def refuse_mismatches(self, force: bool) -> None:
        """Refuse a selection that is empty, or does not fit the base."""
        for role, names in self.empty.items():
            if not names:
                continue
            refuse_ungathered(f"{role} ({self.checkpoints[role].label})", names)
        if self.wrong_shape:
            raise InputRefused(
                "base and fine-tuned", f"shapes differ in {listed(self.wrong_shape, 'selected tensor', 4)}",
                "Both must come from one model; leave tensors out with --exclude.",
            )  # fmt: skip
        if not self.selected and not self.without_partner:
            raise InputRefused(
                "selection", f"nothing selected: none of {counted(len(self.finetuned.tensors), 'tensor')}"
                f" passes the filters (the model has {self.finetuned.depth} decoder layers)",
                "Widen --layers, --modules or --include; `uvmerge show` lists names and modules.",
            )  # fmt: skip
        if not self.selected or (self.lacking > self.selected and not force):
            raise InputRefused(
                "base and fine-tuned",
                f"nothing matched: the base has no {listed(self.without_partner, 'selected tensor', 3)}"
                if not self.selected
                else f"too few names match: the base has {self.selected:,} of the selected tensors and"
                f" lacks {listed(self.without_partner, 'tensor', 3)}",
                f"The base has names like {next(iter(self.base.tensors), '(none)')}. Are both"
                " checkpoints of one model?" + (" --force goes on." if self.selected else ""),
            )  # fmt: skip

    def notes(self) -> Iterator[str]:
        for checkpoint in self.checkpoints.values():
            yield from checkpoint.notes
        yield from self.finetuned.notes
        yield from self.alignment.notes
        if self.only_finetuned:
            yield f"only in fine-tuned, copied: {listed(self.only_finetuned, 'tensor', 3)}"
        if only := self.alignment.only_in_base():
            yield f"only in base, ignored: {listed(only, 'tensor', 3)}"
        if self.left_alone:
            yield (
                f"of another shape in the base, left as fine-tuned: {listed(self.left_alone, 'tensor', 3)}"
                " (a changed vocabulary?)"
            )
        tied = self.checkpoints[FINETUNED].config.get("tie_word_embeddings") is True
        placed = {t.name: self.finetuned.place(t) for t in self.finetuned.tensors.values() if tied}
        if heads := [name for name, place in placed.items() if place.module == "head"]:
            yield f"the config ties the head to the embeddings, yet stores {listed(heads, 'tensor')}"
        whole = [t for t in self.finetuned.tensors.values() if t.dtype not in FLOATS]
        if whole:
            yield f"not floating point, copied: {listed([t.name for t in whole], 'tensor', 3)}"

    def _tensor(self, tensor: Tensor) -> Iterable[Step]:
        place = self.finetuned.place(tensor)
        chosen = [
            i for i, step in enumerate(self.recipe.steps)
            if step.selection.picks(tensor.name, place, matrices_only=step.operation.matrices_only)
        ]  # fmt: skip
        whole = self._step(tensor, place, self._range(FINETUNED, tensor, 0, tensor.size_bytes))
        self._compare(tensor, place, bool(chosen))
        if not chosen or 0 in tensor.shape:
            return [whole]
        blocks = self._blocks(tensor, place, chosen)
        if blocks is None:
            return [whole]
        self.selected += 1
        if all(not block.chain and block.start == FINETUNED for block in blocks):
            return [whole]
        partner = self.alignment.tensor(tensor)
        if partner and all(not block.chain and block.start == BASE for block in blocks):
            same = [b.base.transposed for b in blocks] == [b.finetuned.transposed for b in blocks]
            if same and partner.shape == tensor.shape:
                return [
                    self._step(tensor, place, self._range(BASE, partner, 0, partner.size_bytes))
                ]
        return self._stretches(tensor, place, blocks)

    def _compare(self, tensor: Tensor, place: Place, chosen: bool) -> None:
        """Note what is odd about a tensor and its counterpart, edited or not."""
        partner = self.alignment.tensor(tensor)
        if partner is None:
            apart = place.is_matrix and all(map(self.alignment.view, self.finetuned.views(tensor)))
            if not apart:
                self.only_finetuned.append(tensor.name)
        elif (tensor.size_bytes == 0) != (partner.size_bytes == 0):
            self.empty[BASE if tensor.size_bytes else FINETUNED].append(tensor.name)
        elif partner.shape != tensor.shape and not chosen:
            self.left_alone.append(tensor.name)

    def _blocks(self, tensor: Tensor, place: Place, chosen: Sequence[int]) -> list[Block] | None:
        """The operand pairs of `tensor`, or None where the base has no fitting partner."""
        views = self.finetuned.views(tensor)
        partners = [self.alignment.view(view) for view in views]
        found = [partner for partner in partners if partner is not None]
        if len(found) < len(views):
            self.without_partner.append(tensor.name)
            self.lacking += place.layer is not None
            return None
        dtypes = {tensor.dtype, *(self.base.tensors[p.tensor].dtype for p in found)}
        floating = dtypes <= set(FLOATS)
        differ = [(v, p) for v, p in zip(views, found) if v.shape != p.shape]
        if differ:
            if floating:
                self._note_difference(tensor, place, differ[0], chosen)
            return None
        blocks = [self._block(view, partner, place, chosen) for view, partner in zip(views, found)]
        if not floating and (len(dtypes) > 1 or any(block.chain for block in blocks)):
            return None  # integers can be copied from either side, not computed with
        return blocks

    def _note_difference(
        self, tensor: Tensor, place: Place, pair: tuple[View, View], chosen: Sequence[int]
    ) -> None:
        ours, theirs = pair
        by_name = any(self.recipe.steps[i].selection.names_module(place.module) for i in chosen)
        if place.module in ("embeddings", "head") and not by_name:
            self.left_alone.append(tensor.name)
        else:
            shapes = f"{list(ours.shape)} against {list(theirs.shape)} in the base"
            self.wrong_shape.append(f"{tensor.name} ({shapes})")

    def _block(self, view: View, partner: View, place: Place, chosen: Sequence[int]) -> Block:
        """Try the chosen steps on outlines and keep those that will have to compute."""
        log = Log()
        base = Outline(partner.label, partner.shape, log)
        current = Outline(view.label, view.shape, log)
        start = FINETUNED
        chain: list[int] = []
        ranks: list[int | None] = []
        for i in chosen:
            # Where base and fine-tuned agree, every operation on a pair leaves them as they are.
            if start == BASE and not chain:
                break
            log.step = i
            result = _try(self.recipe.steps[i], base, current, place)
            if result is base:
                start, chain, ranks = BASE, [], []
            elif result is not current:
                chain.append(i)
                ranks.append(log.ranks.get(i))
        return Block(view, partner, start, tuple(chain), tuple(ranks))

    def _stretches(self, tensor: Tensor, place: Place, blocks: Sequence[Block]) -> Iterator[Step]:
        """Contiguous stretches of a tensor: whole, per expert, or per expert's gate and up."""
        if blocks[0].finetuned.expert is None:
            yield self._stretch(tensor, place, blocks, 0, tensor.shape)
            return
        experts = tensor.shape[0]
        per_expert = len(blocks) // experts
        inner = tensor.shape[1:]
        apart = all(_range_in(tensor, block.finetuned) for block in blocks)
        size = 1 if apart else per_expert
        stored = (inner[0] // (per_expert if apart else 1), *inner[1:])
        for at in range(0, len(blocks), size):
            group = blocks[at : at + size]
            span = _range_in(tensor, group[0].finetuned) if apart else None
            start = span[0] if span else (at // per_expert) * tensor.size_bytes // experts
            yield self._stretch(tensor, place, group, start, stored)

    def _stretch(
        self,
        tensor: Tensor,
        place: Place,
        blocks: Sequence[Block],
        start: int,
        stored: tuple[int, ...],
    ) -> Step:
        out_bytes = header.size_bytes(self.dtype_of(tensor), stored)
        stored_bytes = header.size_bytes(tensor.dtype, stored)
        offset = start * out_bytes // stored_bytes
        source = None
        if not any(block.chain for block in blocks) and len(blocks) == 1:
            source = self._copy_range(tensor, blocks[0])
        if source is None:
            return self._step(tensor, place, None, offset, stored, tuple(blocks))
        return self._step(tensor, place, source, offset, stored)

    def _copy_range(self, tensor: Tensor, block: Block) -> Range | None:
        """The input bytes that are this block, if they lie together and in the same orientation."""
        view = block.base if block.start == BASE else block.finetuned
        owner = self.base.tensors[view.tensor] if block.start == BASE else tensor
        span = _range_in(owner, view)
        if span is None or view.transposed != block.finetuned.transposed:
            return None
        return self._range(block.start, owner, *span)

    def dtype_of(self, tensor: Tensor) -> str:
        """The dtype in which `tensor` will be stored."""
        return self.dtype if self.dtype and tensor.dtype in FLOATS else tensor.dtype

    def _step(
        self,
        tensor: Tensor,
        place: Place,
        copy: Range | None,
        offset: int = 0,
        stored: tuple[int, ...] | None = None,
        blocks: tuple[Block, ...] = (),
    ) -> Step:
        stored = tensor.shape if stored is None else stored
        dtype = self.dtype_of(tensor)
        size = header.size_bytes(dtype, stored)
        return Step(tensor.name, "", offset, size, dtype, stored, place, copy, blocks)

    @staticmethod
    def _range(checkpoint: str, tensor: Tensor, start: int, size_bytes: int) -> Range:
        return Range(checkpoint, tensor.file, tensor.offset + start, size_bytes, tensor.dtype)


def _try(step: RecipeStep, base: Outline, current: Outline, place: Place) -> Edited:
    """What the operation returns for outlines: one of them, or None where it must compute."""
    extra = {"place": place} if step.operation.wants_place else {}
    try:
        return step.operation.function(base, current, **step.options, **extra)
    except NeedsValues:
        return None  # type: ignore[return-value]
    except UvmergeError:
        raise
    except Exception as error:
        raise UsageError(
            step.operation.command, f"failed on {current.name}: {type(error).__name__}: {error}",
            "UVMERGE_DEBUG=1 shows where.",
        ) from error  # fmt: skip


def _range_in(tensor: Tensor, view: View) -> tuple[int, int] | None:
    """(start, size) in bytes of a view within its tensor, or None where it is scattered."""
    if view.expert is None:
        return 0, tensor.size_bytes
    stride = tensor.size_bytes // tensor.shape[0]
    if view.part is None:
        return view.expert * stride, stride
    start, stop, step = view.part
    if view.transposed or step != 1:
        return None
    row = stride // tensor.shape[1]
    return view.expert * stride + start * row, (stop - start) * row


def _working_set(block: Block) -> int:
    if len(block.finetuned.shape) != 2:
        return math.prod(block.finetuned.shape) * 8 * 4
    m, n = block.finetuned.shape
    return int(8 * (_MATRIX_COPIES * m * n + _SQUARE_COPIES * min(m, n) ** 2))


def _effort(block: Block) -> float:
    """Multiply-adds of two Gram matrices and eigendecompositions, in millions."""
    if len(block.finetuned.shape) != 2 or not any(k != 0 for k in block.ranks):
        return 0.0
    m, n = block.finetuned.shape
    r = min(m, n)
    return (2 * m * n * r + 8 * r**3) * 1e-6
