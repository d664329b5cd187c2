"""Operations tried out on outlines, which know only a shape, to see what must be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ..checkpoint.anatomy import Place, View
from ..checkpoint.roles import FINETUNED
from ..errors import UsageError, UvmergeError
from ..operations import Operation
from ..recipe.step import RecipeStep
from ..spectral import Factors, Log, Matrix, Term, leading_count


class NeedsValues(Exception):
    """An operation asked an outline for numbers, so its result must be computed."""


class Outline:
    """An operand that knows only its shape and logs ranks (see `spectral.Matrix`)."""

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

    kept = tensor

    def top(self, k: int) -> Factors:
        raise NeedsValues

    tail = top

    def values(self) -> NoReturn:
        raise NeedsValues

    def plus(self, *terms: Term) -> NoReturn:
        raise NeedsValues

    def __sub__(self, other: Matrix) -> Outline:
        return Outline(f"{self.name} - {other.name}", self.shape, self.log)


@dataclass(frozen=True)
class Outcome:
    """What steps will have to compute of operands: see `Block`."""

    start: int | None
    chain: tuple[int, ...]
    ranks: tuple[int | None, ...]
    options: tuple[Mapping[str, Any], ...]


def try_chain(
    operands: Sequence[tuple[str, View]],
    steps: Mapping[int, RecipeStep],
    place: Place,
    name: str,
) -> Outcome:
    """What steps will have to compute of operands.

    Args:
        operands: (role, view) of each operand; the output mirrors the first.
        steps: the steps that edit the operands, by their index in the recipe.
        place: where the tensor stands in the model.
        name: of the tensor, for options that differ between tensors.

    Raises:
        UsageError: a step has nothing to edit, drops what an earlier step made, or fails.
    """
    log, label = Log(), operands[0][1].label
    outlines = {role: Outline(view.label, view.shape, log) for role, view in operands}
    start = current = outlines.get(FINETUNED)
    chain: dict[int, Mapping[str, Any]] = {}  # options of each step that must compute something
    ranks: dict[int, int | None] = {}
    last = ""  # the last operation that changed something
    for index, step in steps.items():
        log.step, operation = index, step.operation
        if last and not operation.edits:
            raise _drops(operation, last, label)
        inputs = _inputs(operation, outlines, current, label)
        if operation.leaves_equal_inputs_alone and _are_one(inputs):
            continue
        options = step.arguments(name, place, len(inputs))
        result = _try(step, inputs, options, place, label)
        if result is not None and result is current:
            continue
        if any(result is outline for outline in outlines.values()):
            start = current = result
            chain = {}
        else:
            start = start if operation.edits else None
            chain[index], ranks[index] = options, log.ranks.get(index)
            current = Outline(label, operands[0][1].shape, log)  # stands for what the step computes
        last = operation.command
    at = [i for i, role in enumerate(outlines) if outlines[role] is start]
    found = tuple(ranks[index] for index in chain)
    return Outcome(at[0] if at else None, tuple(chain), found, tuple(chain.values()))


def _no_numbers(*_: object) -> NoReturn:
    """What draws random numbers for an outline, whose result must be computed then."""
    raise NeedsValues


def _are_one(inputs: Sequence[object]) -> bool:
    """Whether several inputs are all the same object."""
    return len(inputs) > 1 and all(other is inputs[0] for other in inputs)


def _inputs(
    operation: Operation, outlines: Mapping[str, Outline], current: Outline | None, name: str
) -> list[Outline]:
    """The operands of an operation; the result of the chain stands for the fine-tuned one."""
    if operation.edits and current is None:
        raise UsageError(
            operation.command,
            f"has nothing to edit in {name}: no step before makes it, and no"
            " fine-tuned checkpoint is named",
            "Let both steps select the same tensors.",
        )
    by_role = {**outlines, **({FINETUNED: current} if current is not None else {})}
    return [by_role[role] for role in operation.roles_among(by_role)]


def _drops(operation: Operation, last: str, name: str) -> UsageError:
    return UsageError(
        operation.command,
        f"would drop what {last} makes of {name}",
        "It makes a tensor of checkpoints alone: put it first, or let it select other tensors.",
    )


def _try(
    step: RecipeStep,
    inputs: Sequence[Outline],
    options: Mapping[str, Any],
    place: Place,
    label: str,
) -> Any:
    """What the operation returns for outlines; None where its result must be computed."""
    try:
        return step.operation.function(*inputs, **options, **step.given(place, _no_numbers))
    except NeedsValues:
        return None
    except UsageError as error:
        raise step.located(error) from None
    except UvmergeError:
        raise
    except Exception as error:
        raise UsageError(
            step.operation.command,
            f"failed on {label}: {type(error).__name__}: {error}",
            "UVMERGE_DEBUG=1 shows where.",
        ) from error
