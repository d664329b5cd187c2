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
    """Checkpoints by role, located or downloaded, and fit to be computed with.

    Args:
        whole: roles whose side files (tokenizer, processor, code) are wanted beside the weights.

    Raises:
        InputRefused: a reference that is neither a folder nor on the Hub, or a checkpoint that does
            not add up, is quantised, or was saved without its data.
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
    """One checkpoint, whatever it stores; to be closed by the caller."""
    place = locate.locate(reference, weights_only=not whole)
    return Checkpoint.open(
        place.folder, label=place.label, commit=place.commit,
        load_pickles=load_pickles if settings.allow_pickle else None,
    )  # fmt: skip


def states(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """What changes when a weight file of a checkpoint changes, by role."""
    return {role: checkpoint.state() for role, checkpoint in checkpoints.items()}


def refuse_changed_inputs(before: Mapping[str, Any], checkpoints: Mapping[str, Checkpoint]) -> None:
    """Fail where an input was saved over during the run: the output would be of two minds.

    Args:
        before: what `states` said when the run began.
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
