"""The one way in which every call opens a checkpoint: the same references, options and refusals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..checkpoint.pickled import load_pickles
from ..errors import RunFailed
from ..hub import locate
from ..output.places import Reference
from ..plan import preflight
from .settings import OpenSettings


@contextmanager
def opened(
    references: Mapping[str, Reference], settings: OpenSettings, *, whole: tuple[str, ...] = ()
) -> Iterator[dict[str, Checkpoint]]:
    """Checkpoints by role, located or downloaded, and checked for what cannot be computed with.

    Args:
        whole: roles whose side files (tokenizer, processor, code) are needed besides the weights.

    Raises:
        InputRefused: a reference is neither a folder nor on the Hub, or a checkpoint is
            inconsistent, quantised, or was saved without its data.
    """
    found: dict[str, Checkpoint] = {}
    try:
        for role, reference in references.items():
            found[role] = open_checkpoint(reference, settings, whole=role in whole)
            preflight.refuse_unusable(found[role], role)
        yield found
    finally:
        for checkpoint in found.values():
            checkpoint.close()


def open_checkpoint(
    reference: Reference, settings: OpenSettings, *, whole: bool = True
) -> Checkpoint:
    """One checkpoint, also one that cannot be computed with; the caller closes it."""
    place = locate.locate(reference, weights_only=not whole)
    return Checkpoint.open(
        place.folder, label=place.label, commit=place.commit,
        load_pickles=load_pickles if settings.allow_pickle else None,
    )  # fmt: skip


def states(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """By role, the state of a checkpoint's weight files, which differs once a file has changed."""
    return {role: checkpoint.state() for role, checkpoint in checkpoints.items()}


def refuse_changed_inputs(before: Mapping[str, Any], checkpoints: Mapping[str, Checkpoint]) -> None:
    """Fail where the files of an input changed during the run, which would mix two versions of it.

    Args:
        before: the result of `states` at the beginning of the run.

    Raises:
        RunFailed: a file changed or cannot be read any more.
    """
    for role, checkpoint in checkpoints.items():
        try:
            same = checkpoint.state() == before[role]
        except OSError:
            same = False
        if not same:
            raise RunFailed(
                f"{role} ({checkpoint.label})", "its files changed while they were being read",
                "Wait until they are final, then start over; --overwrite replaces what was begun.",
            )  # fmt: skip
