"""Recipe + headers → a frozen plan of what every byte of the output will be.

Pure: no weight is read. Operations are tried out on outlines that know only a shape. Where an
operation returns an operand untouched (`k = 0`, `alpha 0`, `reset-layers`), the plan has a copy of
bytes; where it asks for values, the plan has an edit. Most refusals happen here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..checkpoint.alignment import Subject, correspond
from ..checkpoint.anatomy import View, anatomy_of
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPES, FLOATS
from ..checkpoint.quantisation import quantisation
from ..checkpoint.roles import mirrored, number_of, spelled
from ..checkpoint.selection import parse_layer_map
from ..checkpoint.stacks import Stack
from ..checkpoint.ties import config_ties_head, heads
from ..errors import InputRefused, listed
from ..operations.merging_options import SUBSPACES
from ..recipe.recipe import Recipe
from . import preflight
from .covered import index_of, refuse_gaps
from .emission import Emission
from .factored import Factored
from .layout import layout
from .merges import refuse_idle_filters
from .outline import Outcome, try_chain
from .roster import Consequences, Roster, alike
from .steps import Block, Plan, Step
from .stretches import Stretches

# Packed weights themselves, not the scales beside them.
_CODES = re.compile(r"(weight|weight_packed|_blocks)$")
# Names of tensors that a loader makes itself where they are missing.
_BUFFER = re.compile(
    r"(inv_freq|position_ids|masked_bias|attn\.bias|cos_cached|sin_cached|running_\w+)$"
)


class Made(NamedTuple):
    """What a plan makes, and of what.

    Attributes:
        emission: how the edit is written as an adapter; None where the output is a checkpoint.
        opened: by role, the checkpoints of which those of the plan are put together; None where
            they are the same.
    """

    emission: Emission | None = None
    opened: Mapping[str, Checkpoint] | None = None


def build(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    *,
    max_shard_bytes: int | None = None,
    force: bool = False,
    left_alone: Collection[str] = (),
    tied: Sequence[Sequence[str]] = (),
    notes: Sequence[str] = (),
    made: Made | None = None,
) -> Plan:
    """Make the plan for `recipe` on these checkpoints. It is final, and nothing else makes plans.

    Args:
        checkpoints: by role; `roles.mirrored` says which of the checkpoints the output mirrors.
        max_shard_bytes: size limit of new shards; by default the output mirrors that checkpoint's
            files.
        force: plan although hardly any selected tensor has a counterpart, or a merge lacks some.
        left_alone: names of tensors to copy from that checkpoint although a step selects them.
        tied: groups of names in that checkpoint that hold one tensor; either all names of a group
            change alike or none does.
        notes: what the user should know beyond what headers tell, as sentences.
        made: what the output is and what the checkpoints are made of, where that is not as usual.

    Raises:
        InputRefused: the checkpoints do not fit each other or the recipe.
        UsageError: the recipe takes other checkpoints, or a step cannot be applied.
    """
    recipe.refuse_other_roles(checkpoints)
    emission, opened = made or Made()
    role = mirrored(checkpoints)
    own = checkpoints[role]
    files, places = layout(own, recipe.dtype, max_shard_bytes)
    dtype = DTYPES[recipe.dtype] if recipe.dtype else None
    stretches = Stretches(role, checkpoints, dtype, places)
    factored = None if emission is None else Factored(emission, role, checkpoints, tied)
    planner = _Planner(recipe, checkpoints, frozenset(left_alone), tied, factored or stretches)
    steps = tuple(planner.output_steps())
    planner.refuse_mismatches(force)
    if factored is not None:
        files = factored.files()
        notes = [*notes, *factored.notes]
    refuse_gaps(files, steps)
    is_new = bool(recipe.dtype or max_shard_bytes or not own.has_right_index)
    index = index_of(own, steps) if factored is None and len(files) > 1 and is_new else None
    inputs = {role: each.identity() for role, each in (opened or checkpoints).items()}
    said = tuple(dict.fromkeys([*planner.notes(), *notes]))
    return Plan(recipe, inputs, files, steps, index, said, emission)


class _Planner:
    """Walks the tensors of the mirrored checkpoint once and decides what becomes of each."""

    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        left_alone: Collection[str],
        tied: Sequence[Sequence[str]],
        stretches: Stretches | Factored,
    ) -> None:
        self.recipe, self.checkpoints, self.left_alone = recipe, checkpoints, left_alone
        self.own = mirrored(checkpoints)
        anatomies = {role: anatomy_of(each) for role, each in checkpoints.items()}
        self.anatomy = anatomies[self.own]
        for step in recipe.steps:
            step.selection.check(self.anatomy.stacks.all, self.anatomy.main)
        refuse_idle_filters(recipe.steps, checkpoints[self.own].tensors)
        self.tied = {name: group for group in tied for name in group}
        layers = parse_layer_map(recipe.layer_map) if recipe.layer_map else None
        self.subjects = correspond(self.own, anatomies, layers)
        others = [role for role in checkpoints if role != self.own]
        consequences = Consequences("copied", "ignored", f"left as {spelled(self.own)}")
        self.roster = Roster(self.own, others, self.subjects, consequences)
        self.stretches = stretches
        self.packed = {role: quantisation(each) for role, each in checkpoints.items()}
        self._some_packed = any(each.packed for each in self.packed.values())
        self.packed_chosen: dict[str, list[str]] = defaultdict(list)  # by role
        self._outcomes: dict[tuple[object, ...], Outcome] = {}
        self._by_name = any(step.depends_on_names for step in recipe.steps)
        self._asked_as: dict[str, str] = {}  # names on which options depend, of tied tensors
        self._taken: dict[tuple[int, ...], list[str]] = {}
        self.touched: set[str] = set()  # names of stacks in which something changes

    def output_steps(self) -> list[Step]:
        """The steps that make every output tensor."""
        ours = {s.tensor.name: s for s in self.subjects if s.role == self.own}
        chosen = {name: self._chosen(subject) for name, subject in ours.items()}
        found: list[Step] = []
        for name, subject in ours.items():
            indices = chosen[name]
            if group := self.tied.get(name):
                members = [replace(ours[n], partners=ours[group[0]].partners) for n in group]
                indices = sorted({i for member in group for i in chosen[member]})
                subject = self._as_one(members, subject, indices)
            found += self._steps_of(subject, indices)
        return found

    def _as_one(self, members: Sequence[Subject], own: Subject, chosen: Sequence[int]) -> Subject:
        """A member of a group of names that hold one tensor, edited as the whole group is.

        It gets the partners of the group's first member; place and name, on which options may
        depend, are those of the first member that a chosen step changes.
        """
        changed = next((m for m in members if self._changes(m, chosen)), own)
        self._asked_as[own.tensor.name] = changed.tensor.name
        return replace(own, partners=members[0].partners, place=changed.place)

    def _changes(self, subject: Subject, chosen: Sequence[int]) -> bool:
        """Whether the chosen steps would change a subject, if its partners had its shape."""
        operands = [(role, subject.views[0]) for role in (self.own, *self._roles(chosen, subject))]
        outcome = self._outcome(operands, subject, chosen)
        return bool(outcome.chain) or outcome.start != 0

    def _chosen(self, subject: Subject) -> list[int]:
        """Indices of the recipe's steps that select a subject."""
        return [
            i
            for i, step in enumerate(self.recipe.steps)
            if step.selection.picks(
                subject.tensor.name, subject.place, matrices_only=step.operation.matrices_only
            )
        ]

    def refuse_mismatches(self, force: bool) -> None:
        """Refuse a selection that is empty, or does not fit the other checkpoints."""
        steps = self.recipe.steps
        self.roster.refuse_empty(self.checkpoints)
        for role, names in self.packed_chosen.items():
            preflight.refuse_packed(self.checkpoints[role], role, names)
        filters = [(step.selection, step.operation.matrices_only) for step in steps]
        self.roster.refuse_nothing_selected(filters, self.anatomy.depth)
        self.roster.refuse_misfits(InputRefused, force=force)
        if not force:
            self.roster.refuse_needed()
        if not force and not all(step.operation.edits for step in steps):
            self.roster.refuse_lacking()

    def notes(self) -> Iterator[str]:
        """What the user should know from headers, as sentences."""
        yield from self.recipe.merge.notes if self.recipe.merge else ()
        for checkpoint in self.checkpoints.values():
            yield from checkpoint.notes
        yield from self.anatomy.notes
        yield from self.roster.notes()
        own = self.checkpoints[self.own]
        for group in dict.fromkeys(map(tuple, self.tied.values())):
            yield f"one tensor under several names, which move together: {', '.join(group)}"
        for step in self.recipe.steps:
            for glob in step.selection.idle_globs(own.tensors):
                yield f"{glob!r} matches no tensor: a glob is for the whole name, like '*{glob}*'"
        apart = [head.name for head in heads(self.anatomy) if head.name not in self.tied]
        if config_ties_head(own.config) is True and apart:
            listing = listed(apart, "tensor")
            yield f"the config ties the head to the embeddings, yet the weights have {listing}"
        yield from self._stack_notes()
        whole = [t.name for t in own.tensors.values() if t.dtype not in FLOATS]
        if whole:
            yield f"not floating point, copied: {listed(whole, 'tensor', 3)}"
        for role, found in self.packed.items():
            if found.is_stale:
                yield (
                    f"config.json of {spelled(role)} has a quantization_config ({found.method}),"
                    " its weights are plain: the config is copied as it is"
                )

    def _stack_notes(self) -> Iterator[str]:
        """Which of several stacks the steps work on, and which tensors in them no rule covers."""
        stacks = self.anatomy.stacks.all
        if len(stacks) > 1:
            touched = [str(stack) for stack in stacks if stack.name in self.touched]
            if len(touched) > 1:
                yield f"works on {', '.join(touched)}"
            for stack in self.anatomy.main:
                if self._is_too_shallow(stack):
                    yield f"{stack} has none of the layers that were asked for"
            if others := [str(stack) for stack in stacks if stack.name not in self.touched]:
                yield f"left as {spelled(self.own)}: {', '.join(others)}; --stack chooses others"
        if any(step.operation.matrices_only for step in self.recipe.steps):
            tensors = [t for t in self.anatomy.non_matrices() if self._is_touched(t)]
            if tensors:
                yield f"left alone, not matrices: {alike(tensors)}"

    def _is_too_shallow(self, stack: Stack) -> bool:
        """Whether every step asks for layers, all beyond the stack's depth."""
        asked = [step.selection.layers for step in self.recipe.steps]
        return all(layers and min(layers) >= stack.depth for layers in asked)

    def _is_touched(self, tensor: Tensor) -> bool:
        return self.anatomy.place(tensor).stack in self.touched

    def _steps_of(self, subject: Subject, chosen: Sequence[int]) -> Iterable[Step]:
        """The steps that make one output tensor, edited by the chosen steps of the recipe."""
        tensor, place = subject.tensor, subject.place
        by_name = any(self.recipe.steps[i].selection.names_module(place.module) for i in chosen)
        roles = self._roles(chosen, subject)
        if self._some_packed:
            self._note_packed(subject)
        if not self.roster.admits(subject, roles if chosen else None, by_name):
            if chosen and self._would_change(subject, chosen):
                self.roster.need(subject, roles)
            return self.stretches.copy(subject)
        blocks = [self._block(subject, roles, n, chosen) for n in range(len(subject.views))]
        computes = any(block.chain for block in blocks)
        if computes and tensor.name in self.packed[self.own].packed:
            self.packed_chosen[self.own].append(tensor.name)
        if tensor.dtype not in FLOATS and computes:
            return self.stretches.copy(subject)  # integers can be copied, but not computed with
        self.roster.matched += 1
        if place.stack is not None and (computes or any(block.start for block in blocks)):
            self.touched.add(place.stack)
        if tensor.name in self.left_alone:
            return self.stretches.copy(subject)
        return self.stretches.edit(subject, blocks)

    def _note_packed(self, subject: Subject) -> None:
        """Record packed tensors in any checkpoint that a step would edit, were they plain."""
        sides = [(self.own, subject.tensor), *((r, p.tensor) for r, p in subject.partners.items())]
        packed = [(role, t.name) for role, t in sides if t and t.name in self.packed[role].packed]
        if not packed or not _CODES.search(subject.tensor.name):
            return
        place, name = replace(subject.place, is_matrix=True), subject.tensor.name
        if any(
            step.operation.matrices_only and step.selection.picks(name, place, matrices_only=True)
            for step in self.recipe.steps
        ):
            for role, each in packed:
                self.packed_chosen[role].append(each)

    def _would_change(self, subject: Subject, chosen: Sequence[int]) -> bool:
        """Whether a step on tensors of any shape would change a subject that lacks a partner.

        The step is tried as if the partner were there. Leaving such a tensor as it is would mix
        the values of two models in one output.
        """
        on_any = [i for i in chosen if not self.recipe.steps[i].operation.matrices_only]
        tensor = subject.tensor
        if not on_any or tensor.dtype not in FLOATS or _BUFFER.search(tensor.name):
            return False
        return self._changes(subject, on_any)

    def _roles(self, chosen: Sequence[int], subject: Subject) -> list[str]:
        """The other roles that the chosen steps take for a subject."""
        key = tuple(chosen)
        if key not in self._taken:
            operations = [self.recipe.steps[i].operation for i in chosen]
            taken = {r for operation in operations for r in operation.roles_among(self.checkpoints)}
            self._taken[key] = [role for role in self.roster.others if role in taken]
        merge, name = self.recipe.merge, subject.tensor.name
        if merge is None:
            return self._taken[key]
        count = merge.layout.count_at(name, subject.place)
        return [role for role in self._taken[key] if number_of(role) < count]

    def _block(
        self, subject: Subject, roles: Sequence[str], number: int, chosen: Sequence[int]
    ) -> Block:
        """The view `number` of a subject, with the steps that will have to compute."""
        operands = [(self.own, subject.views[number])]
        for role in roles:
            view = subject.partners[role].views[number]
            assert view is not None  # the roster admits only complete partners
            operands.append((role, view))
        found = self._outcome(operands, subject, chosen)
        whole = [o for i in found.chain if (o := self.recipe.steps[i].operation).wants_whole]
        decomposes = len(subject.views[0].shape) == 2 and any(o.group == SUBSPACES for o in whole)
        return Block(
            tuple(operands),
            found.start,
            found.chain,
            found.ranks,
            found.options,
            bool(whole),
            decomposes,
        )

    def _outcome(
        self, operands: Sequence[tuple[str, View]], subject: Subject, chosen: Sequence[int]
    ) -> Outcome:
        """`try_chain`, called once for all operands of the same shapes at the same place."""
        shapes = tuple((role, view.shape) for role, view in operands)
        name = self._asked_as.get(subject.tensor.name, subject.tensor.name)
        key = (shapes, subject.place, tuple(chosen), name if self._by_name else "")
        if key not in self._outcomes:
            steps = {i: self.recipe.steps[i] for i in chosen}
            self._outcomes[key] = try_chain(operands, steps, subject.place, name)
        return self._outcomes[key]
