"""A chain of steps on the operands of one block, whatever holds their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..checkpoint.roles import FINETUNED
from ..errors import RunFailed, UvmergeError
from ..plan.steps import Block, Plan, Step
from ..recipe.recipe import RecipeStep
from ..spectral import Log
from .reading import equal

Alike: TypeAlias = Callable[[Sequence[str]], bool]  # whether several roles hold equal values


@dataclass(frozen=True)
class Chain:
    """What one plan does to one block.

    Attributes:
        out: where the result goes.
        entry: what is said of it in the manifest.
    """

    plan: Plan
    step: Step
    block: Block
    out: Tensor
    entry: dict[str, Any]

    @property
    def on_matrices(self) -> bool:
        """Whether any of its operations works on whole matrices."""
        return any(step.operation.matrices_only for step in self._steps.values())

    @property
    def _steps(self) -> dict[int, RecipeStep]:
        return {index: self.plan.recipe.steps[index] for index in self.block.chain}

    def settled(self, alike: Alike) -> str | None:
        """The role whose values are the result, if every step leaves equal inputs alone and gets
        such; None where there is something to compute."""
        at = self.block.start_role
        for step in self._steps.values():
            roles = _held(step, self.block, at)
            if not _left_alone(step, roles, alike):
                return None
            at = at if step.operation.edits else roles[0]
        return at

    def through(
        self,
        operands: Mapping[str, Any],
        alike: Alike,
        wrap: Callable[[Tensor], Any],
        log: Log | None = None,
    ) -> Any:
        """What the chain makes of operands by role.

        Args:
            alike: of the roles, by their values.
            wrap: makes an operand of an operation's tensor.
            log: is told which step runs.
        """
        at = self.block.start_role  # the role that holds `current`, while one does
        current = None if at is None else operands[at]
        for index, step in self._steps.items():
            if log is not None:
                log.step = index
            roles = _held(step, self.block, at)
            if _left_alone(step, roles, alike):
                if not step.operation.edits:
                    at, current = roles[0], operands[str(roles[0])]
                continue
            inputs = [current if role is None else operands[role] for role in roles]
            result = _apply(step, self.step, inputs)
            current = wrap(result) if isinstance(result, Tensor) else result
            at = next((role for role, each in operands.items() if each is current), None)
        return current


def alike_by(stored: Mapping[str, Tensor]) -> Alike:
    """`Alike` for the values of roles as they are stored; each comparison is made once."""
    known: dict[tuple[str, ...], bool] = {}

    def alike(roles: Sequence[str]) -> bool:
        first, *others = key = tuple(dict.fromkeys(roles))
        if key not in known:
            known[key] = all(equal(stored[first], stored[role]) for role in others)
        return known[key]

    return alike


def _held(step: RecipeStep, block: Block, at: str | None) -> list[str | None]:
    """Which role holds each input of a step; None for what the chain has made.

    Args:
        at: the role that holds what the chain has made so far, while one does.
    """
    operation = step.operation
    roles = operation.roles_among({**dict(block.operands), FINETUNED: None})
    return [at if operation.edits and role == FINETUNED else role for role in roles]


def _left_alone(step: RecipeStep, roles: Sequence[str | None], alike: Alike) -> bool:
    """Whether a step declares that it leaves equal inputs alone, and gets such."""
    if not step.operation.leaves_equal_inputs_alone or len(roles) < 2:
        return False
    held = [role for role in roles if role is not None]
    return len(held) == len(roles) and alike(held)


def _apply(step: RecipeStep, to: Step, inputs: Sequence[Any]) -> Any:
    """What an operation returns, of the shape of its inputs; what it raises names the tensor."""
    operation = step.operation
    extra = {"place": step.selection.seen(to.place)} if operation.wants_place else {}
    try:
        result = operation.function(*inputs, **step.options, **extra)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # its own algebra
        raise RunFailed(
            to.tensor, f"{operation.command} did not converge: {error}",
            "Leave the tensor out with --exclude and report the matrix.",
        ) from error  # fmt: skip
    except (UvmergeError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            raise
        raise RunFailed(
            to.tensor, f"{operation.command} failed: {type(error).__name__}: {error}",
            "UVMERGE_DEBUG=1 shows where.",
        ) from error  # fmt: skip
    shape = tuple(inputs[0].shape)
    if tuple(result.shape) != shape:
        raise RunFailed(
            to.tensor, f"{operation.command} returned shape {list(result.shape)}"
            f" instead of {list(shape)}")  # fmt: skip
    return result
