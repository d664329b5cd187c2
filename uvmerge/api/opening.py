"""The one way in which every call opens a checkpoint: the same references, options and refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ..checkpoint.adapter import WEIGHTS as ADAPTER_WEIGHTS, is_adapter
from ..checkpoint.adapter_sums import terms_of
from ..checkpoint.folder import Checkpoint
from ..checkpoint.pickled import load_pickles
from ..checkpoint.roles import BASE, mirrored, spelled
from ..checkpoint.source import LocalFile
from ..engine.progress import Progress
from ..errors import RunFailed, listed
from ..hub import remote
from ..hub.locate import Local, locate
from ..hub.references import hides_a_model, with_adapter
from ..hub.remote import Remote
from ..output.places import Reference, is_store
from ..plan import preflight
from ..recipe.recipe import Recipe
from ..stores import reading
from .adapting import open_adapter, open_named_pair, open_sum, without_inner_adapter
from .settings import OpenSettings


@contextmanager
def opened(
    references: Mapping[str, Reference],
    settings: OpenSettings,
    *,
    whole: tuple[str, ...] = (),
    by_ranges: bool = False,
) -> Iterator[dict[str, Checkpoint]]:
    """Checkpoints by role, located or downloaded, and checked for what cannot be computed with.

    Args:
        whole: roles whose side files (tokenizer, processor, code) are needed besides the weights.
        by_ranges: of weights on the Hub or in a store, fetch what is read of them, when it is read.

    Raises:
        InputRefused: a reference is no folder, and neither on the Hub nor in a store, or a checkpoint is
            inconsistent, quantised, or was saved without its data.
    """
    found: dict[str, Checkpoint] = {}
    try:
        # The base first: an adapter is merged into it.
        for role in sorted(references, key=lambda role: role != BASE):
            found[role] = open_checkpoint(
                references[role],
                settings,
                whole=role in whole,
                by_ranges=by_ranges,
                base=found.get(BASE),
            )
            preflight.refuse_unusable(found[role], role)
        yield {role: found[role] for role in references}
    finally:
        for checkpoint in found.values():
            checkpoint.close()


def opened_for(
    recipe: Recipe, references: Mapping[str, Reference], settings: OpenSettings
) -> AbstractContextManager[dict[str, Checkpoint]]:
    """`opened`, with what a recipe needs: all tokenizers for a merge, and whole files where tensors are
    put together anew."""
    rearranged = recipe.merge is not None and not recipe.merge.layout.is_whole
    at_once = rearranged or recipe.tokenizer is not None or recipe.mixture is not None
    is_merge = any(step.operation.takes_several for step in recipe.steps)
    whole = tuple(references) if at_once or is_merge else (mirrored(references),)
    return opened(references, settings, whole=whole, by_ranges=not at_once)


def open_checkpoint(
    reference: Reference,
    settings: OpenSettings,
    *,
    whole: bool = True,
    by_ranges: bool = False,
    base: Checkpoint | None = None,
) -> Checkpoint:
    """One checkpoint, also one that cannot be computed with; the caller closes it.

    Args:
        whole, by_ranges: see `opened`.
        base: the model that an adapter is merged into; by default the one that its config names.
    """
    if parts := with_adapter(reference):
        model, adapter = parts
        of = open_checkpoint(model, settings, whole=whole)
        beside = locate(adapter, weights_only=not whole)
        return open_named_pair(of, beside, allow_pickle=settings.allow_pickle)
    pickled = load_pickles if settings.allow_pickle else None
    force = bool(getattr(settings, "force", False))
    if terms := terms_of(reference):
        return open_sum(terms, base, allow_pickle=settings.allow_pickle, force=force)
    place = _place(reference, weights_only=not whole, by_ranges=by_ranges)
    if isinstance(place, Local) and is_adapter(place.folder):
        return open_adapter(place, base, allow_pickle=settings.allow_pickle, force=force)
    source_of = LocalFile if isinstance(place, Local) else place.source
    found = Checkpoint.open(
        place.folder, label=place.label, commit=place.commit, load_pickles=pickled,
        source_of=source_of,
    )  # fmt: skip
    if settings.merge_inner_adapters:
        return without_inner_adapter(found)
    return found


def say_folders(references: Mapping[str, Reference], progress: Progress) -> None:
    """Say of each folder here that it is spelled like a model of the Hub."""
    for role, reference in references.items():
        if hides_a_model(reference):
            progress.say(
                f"note: {spelled(role)} is the folder {reference}; hf://{reference} is the model"
                " of the Hub"
            )


def lengthen_equal_labels(opened: Sequence[Checkpoint]) -> None:
    """Add to equal labels what differs: the commit, the folders above, or a number."""
    counts = Counter(checkpoint.label for checkpoint in opened)
    alike = [checkpoint for checkpoint in opened if counts[checkpoint.label] > 1]
    for number, checkpoint in enumerate(alike, 1):
        if checkpoint.commit is not None:
            checkpoint.label += f"@{checkpoint.commit[:7]}"
            continue
        parts = checkpoint.on_disk().resolve().parts
        others = [each.on_disk().resolve().parts for each in alike if each is not checkpoint]
        depth = next((n for n in (2, 3) if all(parts[-n:] != o[-n:] for o in others)), 0)
        checkpoint.label = "/".join(parts[-depth:]) if depth else f"{checkpoint.label} ({number})"


def _place(reference: Reference, *, weights_only: bool, by_ranges: bool) -> Local | Remote:
    """Where a checkpoint is; an adapter is small, and fetched whole."""
    in_store = is_store(reference)
    if by_ranges:
        opened_by_ranges = reading.opened if in_store else remote.opened
        place = opened_by_ranges(reference, weights_only=weights_only)
        if isinstance(place, Local) or ADAPTER_WEIGHTS not in place.sources:
            return place
    whole = reading.located if in_store else locate
    return whole(reference, weights_only=weights_only)


def states(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """By role, what must be the same of a checkpoint's weight files for a run to be resumed.

    A file that was restored from a backup, or got another mode or owner, counts as the same.
    """
    return {role: checkpoint.states() for role, checkpoint in checkpoints.items()}


def refuse_changed_inputs(checkpoints: Mapping[str, Checkpoint]) -> None:
    """Fail where a file of an input has changed since it was opened: versions would be mixed.

    Raises:
        RunFailed: names the files that were replaced, written to or deleted.
    """
    for role, checkpoint in checkpoints.items():
        if names := checkpoint.changed_files():
            raise RunFailed(
                f"{spelled(role)} ({checkpoint.label})",
                f"changed while running: {listed(names, 'file', 3)}",
                "Wait until the files are final, then run the same command again; --overwrite"
                " replaces what was begun.",
            )
