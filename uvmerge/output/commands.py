"""Commands that a person may run next, to paste into a shell. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command line to paste.

    Attributes:
        why: what it is for, in a few words.
        words: the command and its arguments.
    """

    why: str
    words: tuple[str, ...]

    @property
    def line(self) -> str:
        """The command, quoted for a shell."""
        return shlex.join(self.words)


def block(title: str, commands: tuple[Command, ...]) -> list[str]:
    """A title, and below it the purpose and the line of each command."""
    return [title, *(line for c in commands for line in (f"  {c.why}:", f"    {c.line}"))]


def baseline(base: str, finetuned: str, out: str) -> Command:
    """The sweep of interpolation, which every repair has to beat."""
    words = ("uvmerge", "sweep", "interpolate", base, finetuned, out)
    return Command("the line to beat", (*words, "--scale", "0.1,0.2,0.3,0.5"))
