"""Open an adapter as the checkpoint that its merge is: find its base, and compare it with BASE."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint.adapter import Adapter, is_adapter
from ..checkpoint.folder import Checkpoint, folder_label
from ..checkpoint.inner import has_inner_adapter, merged_inside
from ..checkpoint.merged import MergedCheckpoint
from ..checkpoint.pickled import load_pickles
from ..checkpoint.sample import hold_alike
from ..errors import InputRefused
from ..hub import locate
from ..hub.locate import Local
from ..models import adapters
from ..text import brief

_NAME_IT = "Name the model that the adapter was trained on as BASE, or merge the adapter first."


def open_adapter(
    place: Local, base: Checkpoint | None, *, allow_pickle: bool, force: bool
) -> MergedCheckpoint:
    """The adapter in `place`, merged into a base as it is read; the caller closes it.

    Args:
        base: the BASE of the run; without one, the model that the adapter's config names is opened.
        force: go on although BASE is another model than the one that the config names.

    Raises:
        InputRefused: the adapter is of a kind that is not merged here, was trained on another model
            than BASE, or names no model that can be found.
        UsageError: peft is not installed.
    """
    adapters.refuse_no_peft(place.label)
    adapter = Adapter.open(
        place.folder, label=place.label, commit=place.commit, pickles=allow_pickle
    )
    owned, note = base is None, ""
    try:
        if base is None:
            base = _named_base(adapter, allow_pickle)
        else:
            note = _compared(adapter, base, force)
        try:
            found = MergedCheckpoint.of(base, adapter, adapters.merge, owns_base=owned)
        except BaseException:
            if owned:
                base.close()
            raise
    except BaseException:
        adapter.source.close()
        raise
    if note:
        found.notes.append(note)
    return found


def open_named_pair(base: Checkpoint, place: Local, *, allow_pickle: bool) -> MergedCheckpoint:
    """The adapter in `place`, merged into the model that was named with it: `model+adapter`.

    Args:
        base: that model; it is closed with the result, and here where this fails.

    Raises:
        InputRefused: `place` holds no adapter, or one that does not fit the model.
        UsageError: peft is not installed.
    """
    try:
        if not is_adapter(place.folder):
            raise InputRefused(
                place.label, "is no adapter: it has no adapter_config.json",
                "Name an adapter behind the `+`.",
            )  # fmt: skip
        found = open_adapter(place, base, allow_pickle=allow_pickle, force=True)
    except BaseException:
        base.close()
        raise
    found.owns_base = True
    return found


def without_inner_adapter(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint with the LoRA that it stores merged as it is read; itself where it stores none.

    Raises:
        InputRefused: it stores several, or nothing says the alpha of the one.
        UsageError: peft is not installed.
    """
    if not has_inner_adapter(checkpoint):
        return checkpoint
    try:
        adapters.refuse_no_peft(checkpoint.label)
        return merged_inside(checkpoint, adapters.merge)
    except BaseException:
        checkpoint.close()
        raise


def _named_base(adapter: Adapter, allow_pickle: bool) -> Checkpoint:
    """The model that an adapter's config names, opened."""
    if not adapter.base:
        what = "is an adapter whose config names no base_model_name_or_path"
        raise InputRefused(adapter.label, what, "Add it to adapter_config.json.")
    try:
        place = locate.locate(_reference(adapter))
    except InputRefused as error:
        what = f"is an adapter of {brief(adapter.base)}, which is not found"
        do = f"{error.what}. Correct base_model_name_or_path in adapter_config.json."
        raise InputRefused(adapter.label, what, do) from None
    return Checkpoint.open(
        place.folder, label=place.label, commit=place.commit,
        load_pickles=load_pickles if allow_pickle else None,
    )  # fmt: skip


def _reference(adapter: Adapter) -> str:
    """The base that a config names; its revision counts for a model of the Hub alone."""
    is_folder = Path(adapter.base).expanduser().is_dir()
    return (
        f"{adapter.base}@{adapter.revision}" if adapter.revision and not is_folder else adapter.base
    )


def _compared(adapter: Adapter, base: Checkpoint, force: bool) -> str:
    """A note where BASE may not be the model that an adapter was trained on; empty where it is.

    Raises:
        InputRefused: BASE is another model, by its files or by its Hub id; not with `force`.
    """
    if not adapter.base:
        return f"the adapter {adapter.label} names no base; {base.label} is taken for it"
    named = Path(adapter.base).expanduser()
    differs = f"was trained on {brief(adapter.base)}, BASE is {base.label}"
    if named.is_dir():
        if named.resolve() == base.on_disk().resolve() or _same_weights(named, base):
            return ""
    elif base.commit is None:
        if folder_label(named) == base.label:
            return ""
        return f"the adapter {differs}: that they are the same cannot be told"
    elif adapter.base == base.label:
        other = adapter.revision not in (None, "main", base.commit)
        return f"the adapter was trained on revision {adapter.revision}" if other else ""
    if force:
        return f"the adapter {differs}"
    raise InputRefused(adapter.label, differs, f"{_NAME_IT} --force goes on.")


def _same_weights(folder: Path, base: Checkpoint) -> bool:
    """Whether a folder holds the weights of `base`: names, shapes and samples are equal."""
    try:
        with Checkpoint.open(folder) as other:
            return hold_alike(other, base)
    except InputRefused:
        return False
