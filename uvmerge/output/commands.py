"""Commands that a person may run next, to paste into a shell. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

NEEDS = "needs uvmerge[eval]"  # of the commands of lm-evaluation-harness
MOST_COMPARED = 16  # evaluations in a command to paste


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
    base: str | None,
    finetuned: str | None,
    out: str,
    *,
    loads: bool = True,
    generates: bool = True,
) -> tuple[Command, ...]:
    """What to do with an output.

    Args:
        base, finetuned: how commands name the inputs; None where there is no such input.
        loads: whether the output is where models are loaded from.
        generates: whether the model generates text, so that it can be asked the tasks of lm-eval.
    """
    out = f"./{out}" if out.startswith("-") else out  # no option
    against = () if finetuned is None else ("--against", finetuned)
    why, load = ("is it whole, and does it load", ("--load",)) if loads else ("is it whole", ())
    found = [Command(why, ("uvmerge", "check", out, *load, *against))]
    if finetuned is not None:
        found.append(Command("what the edit moved", ("uvmerge", "diff", finetuned, out)))
    if generates:
        why = f"evaluate it on the tasks that matter, like these ({NEEDS})"
        found.append(Command(why, _evaluation(out)))
    if base is not None and finetuned is not None:
        found.append(baseline(base, finetuned, f"{out}-interpolated"))
    return tuple(found)


def after_adapter(against: str | None, out: str) -> tuple[Command, ...]:
    """What to do with an output that is an adapter.

    Args:
        against: how commands name the model that the adapter is for; None where nothing names it.
    """
    out = f"./{out}" if out.startswith("-") else out
    found = [Command("is it whole", ("uvmerge", "check", out))]
    if against is not None:
        merge = ("uvmerge", "merge-lora", against, out, f"{out}-merged")
        found.append(Command("the adapter as a whole model", merge))
    return tuple(found)


def after_sweep(
    base: str | None, finetuned: str | None, outs: Sequence[str], *, generates: bool = True
) -> tuple[Command, ...]:
    """What to do with the outputs of a sweep.

    Args:
        base, finetuned: how commands name the inputs; None where there is no such input.
        outs: the folder of each output.
        generates: whether the model generates text.
    """
    outs = [f"./{out}" if out.startswith("-") else out for out in outs]
    against = () if finetuned is None else ("--against", finetuned)
    check = ("uvmerge", "check", outs[0], "--load", *against)
    found = [Command("is each whole, and does it load, as the first", check)]
    if generates:
        given = {"base": base, "finetuned": finetuned}
        places = {name: path for name, path in given.items() if path is not None}
        places |= {PurePath(out).name: out for out in outs}
        names = " and ".join(name for name in places if name in given)
        why = (
            f"evaluate each{f', {names} too,' if names else ''} on the tasks that matter, like this"
        )
        first = PurePath(outs[0]).name
        kept = ("--log_samples", "--output_path", f"evals/{first}")
        found.append(Command(f"{why} ({NEEDS})", (*_evaluation(outs[0]), *kept)))
        if len(places) <= MOST_COMPARED:
            words = (f"{name}=evals/{name}" for name in places)
            found.append(Command("which differences are findings", ("uvmerge", "compare", *words)))
    if base is not None and finetuned is not None:
        folder = str(PurePath(outs[0]).parent)
        found.append(baseline(base, finetuned, f"{folder}-interpolated"))
    return tuple(found)


def _evaluation(out: str) -> tuple[str, ...]:
    """lm-evaluation-harness on tasks of general skill, which fine-tuning may have hurt."""
    tasks = ("--tasks", "hellaswag,arc_easy,winogrande")
    return ("lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={out}", *tasks)


def block(title: str, commands: tuple[Command, ...]) -> list[str]:
    """A title, and below it the purpose and the line of each command."""
    return [title, *(line for c in commands for line in (f"  {c.why}:", f"    {c.line}"))]


def baseline(base: str, finetuned: str, out: str) -> Command:
    """The sweep of interpolation, which every repair has to beat."""
    words = ("uvmerge", "sweep", "interpolate", base, finetuned, out)
    return Command("the line to beat", (*words, "--scale", "0.1,0.2,0.3,0.5"))
