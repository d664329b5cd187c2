"""Operations tried out on outlines, which know a shape and nothing else: what would be computed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ..checkpoint.anatomy import Place, View
from ..checkpoint.roles import FINETUNED
from ..errors import UsageError, UvmergeError
from ..operations import Operation
from ..recipe.recipe import RecipeStep
from ..spectral import Factors, Log, Matrix, Term, leading_count


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


def try_chain(
    operands: Sequence[tuple[str, View]], steps: Mapping[int, RecipeStep], place: Place
) -> tuple[int | None, tuple[int, ...], tuple[int | None, ...]]:
    """What steps will have to compute of operands: start, chain and ranks of a `Block`.

    Args:
        operands: role and view of each; the first is what the output mirrors.
        steps: those that are to edit them, by their number in the recipe.
    """
    log, name = Log(), operands[0][1].label
    outlines = {role: Outline(view.label, view.shape, log) for role, view in operands}
    start = current = outlines.get(FINETUNED)
    chain: dict[int, int | None] = {}  # the k of each step that has to compute
    last = ""  # the operation that has made or moved something
    for index, step in steps.items():
        log.step, operation = index, step.operation
        if last and not operation.edits:
            raise _drops(operation, last, name)
        inputs = _inputs(operation, outlines, current, name)
        if operation.leaves_equal_inputs_alone and _is_one(inputs):
            continue
        result = _try(step, inputs, place, name)
        if result is not None and result is current:
            continue
        if any(result is outline for outline in outlines.values()):
            start = current = result
            chain = {}
        else:
            start = start if operation.edits else None
            chain[index] = log.ranks.get(index)
            current = Outline(name, operands[0][1].shape, log)  # of what it will have computed
        last = operation.command
    at = [i for i, role in enumerate(outlines) if outlines[role] is start]
    return at[0] if at else None, tuple(chain), tuple(chain.values())


def _is_one(inputs: Sequence[object]) -> bool:
    """Whether all of several inputs are one and the same."""
    return len(inputs) > 1 and all(each is inputs[0] for each in inputs)


def _inputs(
    operation: Operation, outlines: Mapping[str, Outline], current: Outline | None, name: str
) -> list[Outline]:
    """What an operation gets; for the fine-tuned tensor, what the chain has made so far."""
    if operation.edits and current is None:
        raise UsageError(
            operation.command, f"has nothing to edit in {name}: no step before makes it, and no"
            " fine-tuned checkpoint is named", "Let both steps select the same tensors.",
        )  # fmt: skip
    by_role = {**outlines, **({FINETUNED: current} if current is not None else {})}
    return [by_role[role] for role in operation.roles_among(by_role)]


def _drops(operation: Operation, last: str, name: str) -> UsageError:
    return UsageError(
        operation.command, f"would drop what {last} makes of {name}",
        "It makes a tensor of checkpoints alone: put it first, or let it select other tensors.",
    )  # fmt: skip


def _try(step: RecipeStep, inputs: Sequence[Outline], place: Place, name: str) -> Any:
    """What the operation returns for outlines: one of them, or None where it must compute."""
    extra = {"place": step.selection.seen(place)} if step.operation.wants_place else {}
    try:
        return step.operation.function(*inputs, **step.options, **extra)
    except NeedsValues:
        return None
    except UvmergeError:
        raise
    except Exception as error:
        raise UsageError(
            step.operation.command, f"failed on {name}: {type(error).__name__}: {error}",
            "UVMERGE_DEBUG=1 shows where.",
        ) from error  # fmt: skip
