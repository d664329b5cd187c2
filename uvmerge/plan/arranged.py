"""The models of a file of mergekit as the operands of its method: checked, and stacked anew where layers move.

Pure: names, shapes and configs decide; no weight is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..checkpoint.anatomy import Anatomy, anatomy_of
from ..checkpoint.folder import Checkpoint
from ..checkpoint.header import DTYPES, FLOATS
from ..checkpoint.restacked import Part, Piece, restacked
from ..checkpoint.roles import BASE, by_role, mirrored
from ..checkpoint.stacks import Stack
from ..errors import RecipeError, counted
from ..operations.options import did_you_mean
from ..operations.varying import EVERYTHING
from ..recipe.levels import Levels
from ..recipe.mergekit import Merge
from ..recipe.mergekit_layout import DEFAULT, Layout, Module, Slice, Source
from ..recipe.mergekit_options import levels_of
from ..recipe.recipe import Recipe
from ..text import brief

_PROJECTOR = re.compile(r"merger|projector|connector")
_SIDES = ("encoder", "decoder")
_NAMES = ("text_decoder", "vision_tower", "multi_modal_projector", *_SIDES, DEFAULT)


def arranged(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> tuple[Recipe, dict[str, Checkpoint]]:
    """The recipe and the checkpoints by role as the planner takes them.

    Args:
        recipe: one of mergekit, or any other, which is returned as it is.
        checkpoints: by role, as they were opened.

    Raises:
        RecipeError: a layer range goes beyond a model, a filter matches nothing, or a module is none
            of the model's; with the line.
    """
    if recipe.merge is None:
        return recipe, dict(checkpoints)
    work = _Arrangement(recipe.merge, checkpoints)
    found = work.operands()
    return work.recipe(recipe, found), found


class _Arrangement:
    """The layout of a merge, and the checkpoints that it names."""

    def __init__(self, merge: Merge, checkpoints: Mapping[str, Checkpoint]) -> None:
        self.merge, self.layout, self.checkpoints = merge, merge.layout, checkpoints
        roles = by_role(self.layout.references())
        self.of = {reference: checkpoints[role] for role, reference in roles.items()}
        self.own = self.of[self._donor()]
        self.stacks: dict[tuple[str, Checkpoint], Stack | None] = {}
        for module in self.layout.modules:
            for source in (s for part in module.slices for s in part.sources):
                checkpoint = self.of[source.model]
                stack = _stack_of(module, anatomy_of(checkpoint), self.merge.source)
                self.stacks[module.name, checkpoint] = stack
                self._refuse_beyond(source, stack, checkpoint)
        self._refuse_same_layers()

    def _refuse_same_layers(self) -> None:
        """Refuse two modules that are the same layers."""
        known: dict[str, str] = {}
        for (name, _), stack in self.stacks.items():
            other = known.setdefault(stack.name, name) if stack else name
            if stack and other != name:
                where = next(module.where for module in self.layout.modules if module.name == name)
                what = f"the modules {brief(name)} and {brief(other)} are the same layers, {stack.name}"
                raise RecipeError(where, what, "Keep one of them.")

    def operands(self) -> dict[str, Checkpoint]:
        """The checkpoints by role: those that were opened where every layer stays where it is."""
        if self._is_whole():
            return dict(self.checkpoints)
        found: dict[str, Checkpoint] = {}
        if self.layout.takes_base:
            found[BASE] = self._operand(lambda part: self.layout.base_of(part))
        most = max(len(self.layout.models_of(part)) for part in self.layout.slices)
        for number in range(most):
            found[f"models[{number}]"] = self._operand(lambda part, n=number: self._model(part, n))
        return found

    def recipe(self, recipe: Recipe, operands: Mapping[str, Checkpoint]) -> Recipe:
        """The recipe with the module of each tensor, and with a dtype where inputs have several."""
        own = operands[mirrored(operands)]
        owners = self._owners(own, "the output") if len(self.layout.modules) > 1 else {}
        layout = replace(self.layout, owners=owners)
        self._refuse_idle_filters(layout, own)
        (step,) = recipe.steps
        options: dict[str, Any] = {
            key: replace(value, layout=layout) if isinstance(value, Levels) else value
            for key, value in step.options.items()
        }
        dtype = recipe.dtype or _promoted(operands.values())
        merge = replace(self.merge, layout=layout)
        return replace(recipe, steps=(replace(step, options=options),), dtype=dtype, merge=merge)

    def _donor(self) -> str:
        """The reference whose config and side files the output has."""
        first = next(iter(self.layout.slices))
        base = self.layout.base_of(first)
        return (base or self.layout.models_of(first)[0]).model

    def _model(self, part: Slice, number: int) -> Source | None:
        models = self.layout.models_of(part)
        return models[number] if number < len(models) else None

    def _is_whole(self) -> bool:
        if not self.layout.is_whole:
            return False
        for module in self.layout.modules:
            for source in module.slices[-1].sources:
                stack = self.stacks[module.name, self.of[source.model]]
                if source.layers and stack and source.layers[1] != stack.depth:
                    return False
        return True

    def _operand(self, chosen: Any) -> Checkpoint:
        """The virtual checkpoint of the sources that `chosen` picks of each slice."""
        parts = []
        for module in self.layout.modules:
            pieces = [self._piece(module, part, chosen(part)) for part in module.slices]
            if any(piece.checkpoint is not None for piece in pieces):
                parts.append(Part(tuple(pieces), self._outside(module)))
        used = [p.checkpoint for part in parts for p in part.pieces if p.checkpoint is not None]
        return restacked(parts, self.own if self.own in used else used[0])

    def _piece(self, module: Module, part: Slice, source: Source | None) -> Piece:
        """The layers of a source; of an operand that a slice does not have, only their number."""
        any_source = source or part.sources[0]
        checkpoint = self.of[any_source.model]
        stack = self.stacks[module.name, checkpoint]
        first, stop = any_source.layers or (0, stack.depth if stack else 0)
        return Piece(None if source is None else checkpoint, stack, first, stop)

    def _outside(self, module: Module) -> dict[Checkpoint, frozenset[str]]:
        """By checkpoint, the tensors of a module that stand in none of its layers."""
        found = {}
        for checkpoint in dict.fromkeys(self.of.values()):
            anatomy = anatomy_of(checkpoint)
            stack = self.stacks.get((module.name, checkpoint))
            owners = self._owners(checkpoint, checkpoint.label)
            found[checkpoint] = frozenset(
                name for name, tensor in checkpoint.tensors.items()
                if owners.get(name, module.name) == module.name
                and (stack is None or anatomy.place(tensor).stack != stack.name)
            )  # fmt: skip
        return found

    def _owners(self, checkpoint: Checkpoint, where: str) -> dict[str, str]:
        """By tensor the name of its module.

        Raises:
            RecipeError: the file has no module for a tensor.
        """
        modules = self.layout.modules
        if len(modules) == 1:
            return {}
        anatomy = anatomy_of(checkpoint)
        stacks = {m.name: _stack_of(m, anatomy, self.merge.source) for m in modules}
        found, missing = {}, []
        for name, tensor in checkpoint.tensors.items():
            owner = _owner(name, anatomy.place(tensor).stack, stacks)
            if owner is None:
                missing.append(name)
            else:
                found[name] = owner
        if missing:
            do = "Add a module `default` with `models:` for the rest."
            if "text_decoder" in stacks:  # the same layers as `default`
                do = "Add the module that has them, like `vision_tower`."
            what = f"no module has {counted(len(missing), 'tensor')} of {where}, like {missing[0]}"
            raise RecipeError(modules[0].where, what, do)
        return found

    def _refuse_beyond(self, source: Source, stack: Stack | None, checkpoint: Checkpoint) -> None:
        depth = stack.depth if stack else 0
        if source.layers and source.layers[1] > depth:
            raise RecipeError(
                source.where,
                f"layer_range {list(source.layers)} goes beyond {checkpoint.label}, which has"
                f" {counted(depth, 'layer')}",
                f"The last layer is {depth - 1}: write at most {depth} behind it.",
            )

    def _refuse_idle_filters(self, layout: Layout, own: Checkpoint) -> None:
        """Refuse filters that match no tensor, of the output or of any model."""
        names = {name for each in (own, *self.of.values()) for name in each.tensors}
        for settings in levels_of(layout):
            for word, rules in settings.items():
                for rule in rules:
                    if rule.filter != EVERYTHING and not any(rule.filter in n for n in names):
                        words = {part for n in names for part in n.split(".") if not part.isdigit()}
                        raise RecipeError(
                            rule.where, f"{word}: the filter '{brief(rule.filter)}' matches no tensor",
                            did_you_mean(rule.filter, words),
                        )  # fmt: skip


def _stack_of(module: Module, anatomy: Anatomy, source: str) -> Stack | None:
    """The stack of layers of a module; None where it has none.

    Raises:
        RecipeError: the model has no such module.
    """
    stacks, main = anatomy.stacks.all, anatomy.main
    by_name = {stack.name: stack for stack in stacks}
    if module.name in by_name:
        return by_name[module.name]
    vision = [stack for stack in stacks if stack.kind == "vision"]
    if module.name in (DEFAULT, "text_decoder"):
        return main[0] if main else None
    if module.name == "vision_tower" and vision:
        return vision[0]
    if module.name == "multi_modal_projector":
        return None
    if module.name in _SIDES:
        for stack in main:
            if module.name in stack.name.split("."):
                return stack
    raise RecipeError(
        module.where, f"the model has no module '{brief(module.name)}'",
        did_you_mean(module.name, [*_NAMES, *by_name]),
    )  # fmt: skip


def _owner(name: str, stack: str | None, stacks: Mapping[str, Stack | None]) -> str | None:
    """The module of a tensor; None where no module has it."""
    if "multi_modal_projector" in stacks and _PROJECTOR.search(name):
        return "multi_modal_projector"
    own = next((module for module, each in stacks.items() if each and each.name == stack), None)
    if own is not None:
        return own
    beside = {
        module: each.name.rpartition(".")[0] + "." for module, each in stacks.items()
        if each and module not in (DEFAULT, "text_decoder")
    }  # fmt: skip
    longest = sorted(beside, key=lambda module: -len(beside[module]))
    if DEFAULT not in stacks or not set(stacks) - set(_NAMES):
        for module in longest:
            if name.startswith(beside[module]) and beside[module] not in (".", "model."):
                return module
    return next(
        (module for module in (DEFAULT, "text_decoder", "decoder") if module in stacks), None
    )


def _promoted(checkpoints: Iterable[Checkpoint]) -> str | None:
    """The dtype that all floating-point dtypes of several checkpoints fit into; None where all agree."""
    kinds = [{t.dtype for t in each.tensors.values() if t.dtype in FLOATS} for each in checkpoints]
    if all(each == kinds[0] for each in kinds):
        return None
    everything = set().union(*kinds)
    wide = everything.pop() if len(everything) == 1 else "F32"
    return {stored: name for name, stored in DTYPES.items()}.get(wide, "float32")
