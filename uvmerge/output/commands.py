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


def after_edit(
    base: str | None, finetuned: str | None, out: str, *, generates: bool = True
) -> tuple[Command, ...]:
    """What to do with an output.

    Args:
        base, finetuned: how commands name the inputs; None where there is no such input.
        generates: whether the model generates text, so that it can be asked the tasks of lm-eval.
    """
    out = f"./{out}" if out.startswith("-") else out  # no option
    against = () if finetuned is None else ("--against", finetuned)
    found = [
        Command("is it whole, and does it load", ("uvmerge", "check", out, "--load", *against))
    ]
    if finetuned is not None:
        found.append(Command("what the edit moved", ("uvmerge", "diff", finetuned, out)))
    if generates:
        tasks = "hellaswag,arc_easy,winogrande"  # of general skill, which fine-tuning may have hurt
        words = ("lm_eval", "--model", "hf", "--model_args", f"pretrained={out}", "--tasks", tasks)
        found.append(Command("evaluate it on the tasks that matter, like these", words))
    if base is not None and finetuned is not None:
        found.append(baseline(base, finetuned, f"{out}-interpolated"))
    return tuple(found)


def block(title: str, commands: tuple[Command, ...]) -> list[str]:
    """A title, and below it the purpose and the line of each command."""
    return [title, *(line for c in commands for line in (f"  {c.why}:", f"    {c.line}"))]


def baseline(base: str, finetuned: str, out: str) -> Command:
    """The sweep of interpolation, which every repair has to beat."""
    words = ("uvmerge", "sweep", "interpolate", base, finetuned, out)
    return Command("the line to beat", (*words, "--scale", "0.1,0.2,0.3,0.5"))
