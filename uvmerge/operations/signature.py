"""What the signature of an operation says of its checkpoints and options."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import UsageError, counted
from ..spectral import Matrix, Operand, Whole
from .options import Parameter

GIVEN = ("place", "draw")  # keywords of an operation that are no options


@dataclass(frozen=True)
class Input:
    """A positional parameter of an operation, which takes one checkpoint or several.

    Attributes:
        name: name of the parameter.
        kind: `Matrix`, `Operand` or `Whole`: what the parameter receives of each checkpoint.
        several: whether the parameter takes as many checkpoints as are named, like `*models`.
        least, most: how many these may be; None for any number.
    """

    name: str
    kind: type
    several: bool
    least: int = 1
    most: int | None = None

    @property
    def metavar(self) -> str:
        """The parameter in a usage line: `BASE`, `MODEL...`, `MODEL MODEL`."""
        name = self.name.upper()
        if not self.several:
            return name
        word = name.removesuffix("S")
        if self.most is None:
            return " ".join([*[word] * (self.least - 1), f"{word}..."])
        return " ".join([word] * self.most)

    def refuse_other_count(self, command: str, count: int, usage: str) -> None:
        """Refuse too few or too many checkpoints for the parameter.

        Raises:
            UsageError: names both counts.
        """
        if count >= self.least and (self.most is None or count <= self.most):
            return
        wanted = f"{self.least}" if self.least == self.most else f"at least {self.least}"
        raise UsageError(
            command, f"takes {wanted} of {self.name}, not {counted(count, 'checkpoint')}",
            f"Usage: {usage}.",
        )  # fmt: skip


def inputs_of(signature: inspect.Signature, models: tuple[int, int | None]) -> Iterator[Input]:
    """The positional parameters of an operation.

    Args:
        models: the least and the largest number of checkpoints that `*models` takes.

    Raises:
        TypeError: there is none, or one is neither an operand nor an option.
    """
    positional = [p for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    if not positional:
        raise TypeError("takes no checkpoint: its positional parameters are the operands")
    for parameter in positional:
        name, several = parameter.name, parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.VAR_KEYWORD or parameter.default is not parameter.empty:
            raise TypeError(f"{name} is neither an operand nor an option: put * before the options")
        if parameter.annotation not in (Matrix, Operand, Whole):
            raise TypeError(
                f"operand {name} lacks its kind: annotate it with Matrix, Operand or Whole"
            )
        yield Input(name, parameter.annotation, several, *(models if several else ()))


def options_of(signature: inspect.Signature) -> Iterator[Parameter]:
    """The options of an operation; a number or a switch may differ between tensors.

    Raises:
        TypeError: an option is no option, or random numbers are asked for without a seed.
    """
    parameters = signature.parameters
    if "draw" in parameters and "seed" not in parameters:
        raise TypeError("draws random numbers without an option seed")
    for name, parameter in parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name not in GIVEN:
            found = Parameter.read(name, parameter.annotation, parameter.default)
            yield replace(found, varies=found.type in (int, float, bool) and name != "seed")
