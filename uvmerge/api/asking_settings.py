"""Settings of `eval cards` and `eval ccci`: how a model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ..operations.options import MACHINE, SAFETY, Option
from ..tasks import hands
from .settings import Declared, parse_device


@dataclass(frozen=True)
class AskSettings(Declared):
    """How a model answers."""

    max_tokens: Annotated[int, Option("length of an answer, in tokens", 1, 2**20)] = 512
    temperature: Annotated[float, Option("0 for the likeliest token at every step", 0, 10)] = 0.0
    seed: Annotated[int, Option("seed of all draws", 0, 2**31 - 1)] = 0
    batch: Annotated[
        int, Option("answers generated, or requests sent, at the same time", 1, 4096)
    ] = 16
    model_name: Annotated[
        str | None, Option("name of the model at an endpoint that serves several")
    ] = None
    timeout: Annotated[float, Option("seconds to wait for an endpoint's answer", 1, 86400)] = 600.0
    device: Annotated[
        str,
        Option("where to run a local model: auto, cpu, cuda or cuda:N", parse=parse_device,
               accepts="str", metavar="DEVICE", group=MACHINE),
    ] = "auto"  # fmt: skip


@dataclass(frozen=True)
class EvalSettings(AskSettings):
    """How a model is asked hands of cards."""

    rule: Annotated[
        Literal["id", "ood", "both"],
        Option("J, Q and K count 10 (id), 11, 12 and 13 (ood), or each hand set in turn (both)"),
    ] = "both"
    hands: Annotated[int, Option("hands asked under each rule", 1, hands.LARGE, metavar="N")] = (
        hands.PUBLISHED
    )
    attempts: Annotated[int, Option("answers to a hand, until one is right", 1, 20)] = 5


@dataclass(frozen=True)
class CcciSettings(AskSettings):
    """How a completer is asked for Java code."""

    limit: Annotated[
        int | None, Option("ask the first N holes", 1, 10**6, metavar="N", unset="all")
    ] = None
    budget: Annotated[int, Option("tokens of context, estimated", 0, 10**6)] = 2000
    depth: Annotated[int, Option("steps of context from the variables in scope", 0, 100)] = 4
    style: Annotated[
        Literal["auto", "infill", "instruct", "plain"],
        Option("the prompt; auto: infilling tokens where a local model has them, else an instruction"
               " where it has a chat template, else the code so far"),
    ] = "auto"  # fmt: skip
    no_sandbox: Annotated[
        bool,
        Option("run answers with your own rights where no sandbox works", group=SAFETY),
    ] = False
