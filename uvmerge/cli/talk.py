"""Progress of commands on stderr, and how commands are stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.progress import Progress


def called(call: Callable[..., Any], settings: dict[str, Any]) -> tuple[Any, bool, Progress]:
    """The result of `call` on a command's settings, whether JSON is asked for, and the progress."""
    from ..engine.progress import Progress
    from .signals import SignalControl

    as_json, dry_run = settings.pop("as_json"), bool(settings["dry_run"])
    quiet, verbose = popped_quiet(settings), settings.pop("verbose")
    stream = sys.stdout if dry_run and not as_json else sys.stderr
    progress = Progress(
        quiet=(quiet and not dry_run) or (as_json and dry_run), verbose=verbose, stream=stream
    )
    return call(progress=progress, control=SignalControl(), **settings), as_json, progress


def popped_quiet(settings: MutableMapping[str, Any]) -> bool:
    """Whether `--quiet` is set; then huggingface_hub, which is imported later, is quiet too."""
    if quiet := bool(settings.pop("quiet")):
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return quiet
