"""The settings of a run, each declared once.

A field carries its type, range and help in the same `Annotated[type, Option(…)]` as an option of an
operation. The command line, the Python signatures, the stub and the tables in docs/options.md are
made from these classes. Each class inherits the settings of the class before it; that of a search those
of `ComputeSettings`.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from ..checkpoint.header import DTYPE_WORDS
from ..checkpoint.roles import BASE, FINETUNED
from ..checkpoint.selection import parse_layer_map
from ..errors import UsageError
from ..operations.options import MACHINE, OUTPUT, SAFETY, WHERE, Option, Parameter, did_you_mean
from ..text import brief
from .machine_options import (
    Address,
    Engine,
    FactorsFolder,
    Memory,
    Workers,
    parse_path,
    parse_plan,
    parse_shard_size,
)

if TYPE_CHECKING:
    from ..engine.progress import Progress
    from ..engine.settings import Control, Settings

Chosen = TypeVar("Chosen", bound="Declared")
Call = TypeVar("Call", bound=Callable[..., Any])


def parse_device(value: object) -> str:
    """The name of a device: auto, cpu, cuda or cuda:N."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", str(value)):
        raise UsageError("device", f"{value!r} is unknown", "Choose auto, cpu, cuda or cuda:N.")
    return str(value)


def parse_hub_id(value: object) -> str | None:
    """A Hub id like `org/name`; a `UsageError` says that a text is none."""
    if value is not None and not re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", str(value)):
        raise UsageError("id", f"'{brief(value)}' is no Hub id", "Write it like org/name.")
    return None if value is None else str(value)


def _parse_layer_map(value: object) -> str | None:
    if value is not None:
        parse_layer_map(value)
    return None if value is None else str(value)


@dataclass(frozen=True)
class Declared:
    """Settings that are declared once, by the fields of a class."""

    @classmethod
    def read(cls: type[Chosen], given: Mapping[str, object]) -> Chosen:
        """The settings that `given` names, checked; a `UsageError` names a wrong option."""
        known = {parameter.name: parameter for parameter in parameters(cls)}
        if unknown := sorted(given.keys() - known.keys()):
            raise UsageError(unknown[0], "is not an option", did_you_mean(unknown[0], known))
        return cls(**{name: known[name].parse(value) for name, value in given.items()})


@dataclass(frozen=True)
class OpenSettings(Declared):
    """How checkpoints are opened: for every call that reads one."""

    allow_pickle: Annotated[
        bool, Option("read .bin/.pt weights (weights_only=True)", group=SAFETY)
    ] = False
    merge_inner_adapters: Annotated[
        bool,
        Option("merge a LoRA that is stored inside a checkpoint (lora_A, lora_B)", group=SAFETY),
    ] = False


@dataclass(frozen=True)
class WorkSettings(Declared):
    """How a machine does its share of a plan that was made before."""

    workers: Workers = 0
    memory: Memory = None
    factors: FactorsFolder = None


@dataclass(frozen=True)
class MachineSettings(OpenSettings):
    """Where and how exactly numbers are computed: for every call that decomposes matrices."""

    device: Annotated[
        str,
        Option("where to compute: auto, cpu, cuda or cuda:N", parse=parse_device, accepts="str",
               metavar="DEVICE", group=MACHINE),
    ] = "auto"  # fmt: skip
    precision: Annotated[
        Literal["exact", "fast"],
        Option("largest error: exact, 1e-6 of the edit; fast, 1e-3, in less time and memory",
               group=MACHINE),
    ] = "exact"  # fmt: skip
    workers: Workers = 0
    memory: Memory = None
    factors: FactorsFolder = None

    def computing(self, *, needs_torch: bool = True) -> Settings:
        """These settings as the engine takes them, with the devices of this machine.

        Args:
            needs_torch: whether a tensor is computed; if not, torch is not imported.
        """
        from ..engine.settings import Settings

        devices: tuple[str, ...] = (self.device,)
        if needs_torch:
            from ..engine import reading

            devices = reading.resolve_devices(self.device)
        return Settings(devices, self.precision, self.workers, self.memory or 0, self.factors)


@dataclass(frozen=True)
class ComputeSettings(MachineSettings):
    """How two or more checkpoints are computed with."""

    layer_map: Annotated[
        str | None,
        Option("where depths differ, which layer of FINETUNED is which of BASE: 0-2:0-2,3-5:5-7",
               parse=_parse_layer_map, accepts="str", metavar="MAP", group=WHERE),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class AnchorSettings(MachineSettings):
    """How an anchor file is built and stored."""

    dtype: Annotated[
        Literal["bfloat16", "float32"],
        Option("store the factors in this dtype; bf16, fp32 are read too",
               aliases={"bf16": "bfloat16", "fp32": "float32"}, group=OUTPUT),
    ] = "bfloat16"  # fmt: skip
    overwrite: Annotated[
        bool, Option("replace an anchor file at OUT, or an unfinished run to it", group=SAFETY)
    ] = False
    dry_run: Annotated[bool, Option("print the plan and write nothing", group=SAFETY)] = False


@dataclass(frozen=True)
class SpreadSettings(ComputeSettings):
    """Who computes: for every call that one machine or several can carry out."""

    engine: Engine = "local"
    address: Address = None


@dataclass(frozen=True)
class SweepSettings(SpreadSettings):
    """How outputs are written: for a sweep, and for every call that writes one checkpoint."""

    dtype: Annotated[
        Literal["keep", "bfloat16", "float16", "float32"],
        Option("store floating point tensors in this dtype; bf16, fp16, fp32 are read too",
               aliases=DTYPE_WORDS, group=OUTPUT),
    ] = "keep"  # fmt: skip
    tokenizer: Annotated[
        str | None,
        Option("tokens of the output: base, union (those of all models), or one of the models",
               metavar="WHOSE", group=OUTPUT, unset="the tokens must be the same"),
    ] = None  # fmt: skip
    pad_to_multiple_of: Annotated[
        int | None,
        Option("with --tokenizer: fill the embeddings with rows up to a multiple of N", 1, 1 << 20,
               metavar="N", group=OUTPUT, unset="no rows beyond the tokens"),
    ] = None  # fmt: skip
    max_shard_size: Annotated[
        int | None,
        Option("reshard the output, like 5GB", parse=parse_shard_size, accepts="str | int",
               metavar="SIZE", group=OUTPUT,
               unset="the files of FINETUNED; of a merge, of BASE or the first model"),
    ] = None  # fmt: skip
    emit: Annotated[
        Literal["checkpoint", "adapter"],
        Option("write a checkpoint, or the edit as a PEFT adapter", group=OUTPUT),
    ] = "checkpoint"
    adapter_rank: Annotated[
        int | None,
        Option("largest rank of a matrix in the adapter", 1, metavar="r", group=OUTPUT,
               unset="as long as factors are smaller than the matrix"),
    ] = None  # fmt: skip
    adapter_error: Annotated[
        float,
        Option("largest relative Frobenius error of a tensor in the adapter", 0, 1, metavar="e",
               group=OUTPUT),
    ] = 1e-5  # fmt: skip
    adapter_for: Annotated[
        Literal["auto", "base", "finetuned"],
        Option("the model that the adapter is for; auto: what the edit starts from", group=OUTPUT),
    ] = "auto"
    lossy: Annotated[
        bool, Option("write an adapter that does not hold all of the edit", group=SAFETY)
    ] = False
    nonfinite: Annotated[
        Literal["refuse", "copy"],
        Option("what to do with matrices that hold NaN or Inf", group=SAFETY),
    ] = "refuse"
    base_id: Annotated[
        str | None,
        Option("Hub id of BASE for the model card, where BASE is a folder",
               parse=parse_hub_id, accepts="str", metavar="ID", group=OUTPUT),
    ] = None  # fmt: skip
    finetuned_id: Annotated[
        str | None,
        Option("Hub id of FINETUNED for the model card, where FINETUNED is a folder",
               parse=parse_hub_id, accepts="str", metavar="ID", group=OUTPUT),
    ] = None  # fmt: skip
    overwrite: Annotated[bool, Option("replace OUT, or an unfinished run to it", group=SAFETY)] = (
        False
    )
    force: Annotated[
        bool, Option("go on although the checkpoints look unrelated", group=SAFETY)
    ] = False
    dry_run: Annotated[bool, Option("print the plan and write nothing", group=SAFETY)] = False
    plan: Annotated[
        Path | None,
        Option("write the plan to FILE and stop: `uvmerge work FILE` does a share of it",
               parse=parse_plan, accepts="str | Path", metavar="FILE", group=MACHINE),
    ] = None  # fmt: skip
    estimate: Annotated[
        bool,
        Option("print what the plan takes, from a short calibration of this machine, and write no"
               " output", group=MACHINE),
    ] = False  # fmt: skip

    @property
    def ids(self) -> dict[str, str]:
        """The Hub ids for the model card, by role."""
        given = {BASE: self.base_id, FINETUNED: self.finetuned_id}
        return {role: hub_id for role, hub_id in given.items() if hub_id is not None}


@dataclass(frozen=True)
class RunSettings(SweepSettings):
    """Settings of a call that writes one checkpoint."""

    report: Annotated[
        Path | None,
        Option("afterwards, measure OUT and the other inputs against BASE (or the first model) into DIR",
               parse=parse_path, accepts="str | Path", metavar="DIR", group=OUTPUT),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class Watch:
    """How the caller of a Python function watches and stops a run.

    Attributes:
        quiet: print no progress (true), or print it wherever stderr leads (false); by default it is
            printed in a terminal and in a notebook.
        progress: where progress is printed; overrides `quiet`.
        control: lets the caller stop the run; finished pieces are kept, and the run can be resumed.
    """

    quiet: bool | None = None
    progress: Progress | None = None
    control: Control | None = None

    @property
    def shown(self) -> Progress:
        """Where progress is printed."""
        from ..engine.progress import Progress, is_watched

        quiet = not is_watched(sys.stderr) if self.quiet is None else self.quiet
        return self.progress or Progress(quiet=quiet)


WATCH = tuple(each.name for each in fields(Watch))


def parameters(settings: type[Any]) -> tuple[Parameter, ...]:
    """The settings of a class as the command line and Python see them."""
    hints = typing.get_type_hints(settings, include_extras=True)
    return tuple(Parameter.read(f.name, hints[f.name], f.default) for f in fields(settings))


def split(settings: type[Chosen], given: MutableMapping[str, Any]) -> tuple[Chosen, Watch]:
    """Take the options of `settings` and `Watch` out of `given`, and leave the others in it."""
    names = [parameter.name for parameter in parameters(settings)]
    chosen = settings.read({name: given.pop(name) for name in names if name in given})
    return chosen, Watch(**{name: given.pop(name) for name in WATCH if name in given})


def split_all(settings: type[Chosen], given: MutableMapping[str, Any]) -> tuple[Chosen, Watch]:
    """`split`, with a `UsageError` where `given` has another option."""
    chosen, watch = split(settings, given)
    if given:
        known = [*(p.name for p in parameters(settings)), *WATCH]
        word = next(iter(given))
        raise UsageError(word, "is not an option", did_you_mean(word, known))
    return chosen, watch


def shows(
    settings: type[Declared],
    options: Sequence[Parameter] = (),
    *,
    watched: bool = True,
    positional: Sequence[inspect.Parameter] | None = None,
    without: Collection[str] = (),
) -> Callable[[Call], Call]:
    """A decorator for a function with `**settings`: its signature shows every keyword, for `help`.

    Args:
        settings: the class of the settings that the function takes.
        options: further keywords, shown before the settings.
        watched: whether the function also takes the keywords of `Watch`.
        positional: the positional parameters, where the function itself takes `*places`.
        without: names of settings that the function decides itself.
    """
    taken = [p for p in parameters(settings) if p.name not in without]
    rows = [(p.name, p.default, p.annotation) for p in (*options, *taken)]
    rows += [(f.name, f.default, str(f.type)) for f in fields(Watch) if watched]
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=words)
        for name, default, words in rows
    ]

    def decorate(call: Call) -> Call:
        signature = inspect.signature(call)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        own = own if positional is None else list(positional)
        shown = signature.replace(parameters=[*own, *keywords])
        call.__signature__ = shown  # type: ignore[attr-defined]
        return call

    return decorate
