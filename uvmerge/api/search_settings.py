"""The settings of `search`, declared as those in `settings`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..operations.options import SAFETY, Option
from .settings import ComputeSettings


@dataclass(frozen=True)
class SearchSettings(ComputeSettings):
    """How a search runs."""

    trials: Annotated[
        int, Option("settings to try in all; the 11 interpolations are not counted", 1, 10**6,
                    metavar="N"),
    ] = 60  # fmt: skip
    trial_timeout: Annotated[
        float | None,
        Option("seconds after which an evaluation is ended and has failed", 0.01,
               metavar="S", unset="none"),
    ] = None  # fmt: skip
    seed: Annotated[int, Option("seed of the draws of settings", 0, 2**31 - 1)] = 1927
    force: Annotated[
        bool, Option("go on although the checkpoints look unrelated", group=SAFETY)
    ] = False
