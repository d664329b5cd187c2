"""A chain of recipe steps on the operands of one block, be they matrices or pieces of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..checkpoint.roles import FINETUNED
from ..errors import RunFailed, UvmergeError
from ..plan.rows import resolved_options
from ..plan.steps import Block, Plan, Step
from ..recipe.step import RecipeStep
from ..spectral import Draw, Log
from ..spectral.pieces import Piecewise
from .reading import equal

Equality: TypeAlias = Callable[[Sequence[str]], bool]  # do these roles hold equal values?


@dataclass(frozen=True)
class Chain:
    """The steps that one plan applies to one block.

    Attributes:
        out: filled with the result, in the shape of the block and the dtype of the output.
        entry: the record of the block in the manifest, filled while the chain is computed.
    """

    plan: Plan
    step: Step
    block: Block
    out: Tensor
    entry: dict[str, Any]

    @classmethod
    def of(cls, plan: Plan, step: Step, block: Block, out: Tensor) -> Chain:
        """The chain of a block, with a record that holds the options which differ between tensors."""
        return cls(plan, step, block, out, resolved_options(plan.recipe, block))

    @property
    def on_matrices(self) -> bool:
        """Whether any operation of the chain needs whole matrices."""
        return any(step.operation.matrices_only for step in self._steps.values())

    @property
    def _steps(self) -> dict[int, RecipeStep]:
        return {index: self.plan.recipe.steps[index] for index in self.block.chain}

    @property
    def _options(self) -> dict[int, Mapping[str, Any]]:
        return dict(zip(self.block.chain, self.block.options, strict=True))

    def result_role(self, are_equal: Equality) -> str | None:
        """The role whose values are the result without any computing: every step declares that it
        leaves equal inputs alone, and gets equal ones. None where a step has to be computed."""
        at = self.block.start_role
        for step in self._steps.values():
            roles = _input_roles(step, self.block, at)
            if not _left_alone(step, roles, are_equal):
                return None
            at = at if step.operation.edits else roles[0]
        return at

    def result(
        self,
        operands: Mapping[str, Any],
        are_equal: Equality,
        wrap: Callable[[Tensor], Any],
        log: Log | None = None,
        device: str = "cpu",
    ) -> Any:
        """The result of the chain: an operand, of the same kind as those given.

        Args:
            operands: by role.
            are_equal: tells whether several roles hold equal values.
            wrap: makes an operand of a tensor that an operation returned.
            log: its `step` is set to each step before that step runs.
            device: where the operands are.
        """
        at = self.block.start_role  # the role that holds `current`; None where steps computed it
        current = None if at is None else operands[at]
        options = self._options
        for index, step in self._steps.items():
            if log is not None:
                log.step = index
            roles = _input_roles(step, self.block, at)
            if _left_alone(step, roles, are_equal):
                if not step.operation.edits:
                    at, current = roles[0], operands[str(roles[0])]
                continue
            inputs = [current if role is None else operands[role] for role in roles]
            result = self._apply(step, inputs, options[index], device)
            if isinstance(result, Piecewise) and self.on_matrices:
                result = result.tensor
            current = wrap(result) if isinstance(result, Tensor) else result
            at = next((role for role, operand in operands.items() if operand is current), None)
        return current

    def _apply(
        self, step: RecipeStep, inputs: Sequence[Any], options: Mapping[str, Any], device: str
    ) -> Any:
        """The result of an operation, which has the shape of its inputs.

        Raises:
            RunFailed: the operation failed or returned another shape; the message names the tensor.
        """
        operation, to = step.operation, self.step
        draw = (
            Draw(options["seed"], self.block.view.label, device) if operation.wants_draw else None
        )
        try:
            result = operation.function(*inputs, **options, **step.given(to.place, draw))
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # of linear algebra in the operation itself
            raise RunFailed(
                to.tensor,
                f"{operation.command} did not converge: {error}",
                "Leave the tensor out with --exclude and report the matrix.",
            ) from error
        except (UvmergeError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if isinstance(error, RuntimeError) and "allocate memory" in str(error):
                raise
            raise RunFailed(
                to.tensor,
                f"{operation.command} failed: {type(error).__name__}: {error}",
                "UVMERGE_DEBUG=1 shows where.",
            ) from error
        shape = tuple(inputs[0].shape)
        if tuple(result.shape) != shape:
            raise RunFailed(
                to.tensor,
                f"{operation.command} returned shape {list(result.shape)} instead of {list(shape)}",
            )
        return result


def equality_of(stored: Mapping[str, Tensor]) -> Equality:
    """An `Equality` for the stored values of roles, which makes each comparison once."""
    known: dict[tuple[str, ...], bool] = {}

    def are_equal(roles: Sequence[str]) -> bool:
        first, *others = key = tuple(dict.fromkeys(roles))
        if key not in known:
            known[key] = all(equal(stored[first], stored[role]) for role in others)
        return known[key]

    return are_equal


def _input_roles(step: RecipeStep, block: Block, at: str | None) -> list[str | None]:
    """The role that holds each input of a step; None for an input that earlier steps computed.

    Args:
        at: the role that holds the result of the earlier steps; None where they computed it.
    """
    operation = step.operation
    roles = operation.roles_among({**dict(block.operands), FINETUNED: None})
    return [at if operation.edits and role == FINETUNED else role for role in roles]


def _left_alone(step: RecipeStep, roles: Sequence[str | None], are_equal: Equality) -> bool:
    """Whether a step declares that it leaves equal inputs alone, and gets equal inputs."""
    if not step.operation.leaves_equal_inputs_alone or len(roles) < 2:
        return False
    held = [role for role in roles if role is not None]
    return len(held) == len(roles) and are_equal(held)
