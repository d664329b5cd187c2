"""Open an adapter as the checkpoint that its merge is: find its base, and compare it with BASE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..checkpoint.adapter import Adapter, is_adapter
from ..checkpoint.adapter_sums import Term
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


def open_sum(
    terms: Sequence[Term], base: Checkpoint | None, *, allow_pickle: bool, force: bool
) -> MergedCheckpoint:
    """Several adapters, each merged into what the one before has made; the caller closes it.

    Args:
        base, force: as for `open_adapter`.

    Raises:
        InputRefused: one of them is no adapter, or they cannot be added up.
    """
    found: MergedCheckpoint | None = None
    labels: list[str] = []
    try:
        for scale, reference in terms:
            place = locate.locate(reference)
            if not is_adapter(place.folder):
                do = "Only adapters are added up; name each as a folder or a Hub id."
                raise InputRefused(place.label, "is no adapter", do)
            found = open_adapter(
                place,
                base if found is None else found,
                allow_pickle=allow_pickle,
                force=force,
                scale=scale,
            )
            label = f"{place.label}@{place.commit}" if place.commit else place.label
            labels.append(label if scale == 1 else f"{scale!r}*{label}")
    except BaseException:
        if found is not None:
            found.close()
        raise
    assert found is not None
    found.label, found.commit = "+".join(labels), None
    return found


def open_adapter(
    place: Local,
    base: Checkpoint | None,
    *,
    allow_pickle: bool,
    force: bool,
    scale: float = 1.0,
) -> MergedCheckpoint:
    """The adapter in `place`, merged into a base as it is read; the caller closes it.

    Args:
        base: the BASE of the run, or an adapter merged into it, which the new one then closes; without
            one, the model that the adapter's config names is opened.
        scale: what the adapter's change is multiplied by.
        force: go on although BASE is another model than the one that the config names.

    Raises:
        InputRefused: the adapter is of a kind that is not merged here, was trained on another model
            than BASE, or names no model that can be found.
        UsageError: peft is not installed.
    """
    adapters.refuse_no_peft(place.label)
    is_named = base is None
    adapter = Adapter.open(
        place.folder, label=place.label, commit=place.commit, pickles=allow_pickle
    )
    owned, note = base is None or isinstance(base, MergedCheckpoint), ""
    try:
        if base is None:
            base = _named_base(adapter, allow_pickle)
        else:
            root = base.root if isinstance(base, MergedCheckpoint) else base
            note = _compared(adapter, root, force)
        was_opened = not isinstance(base, MergedCheckpoint)
        try:
            found = MergedCheckpoint.of(base, adapter, adapters.merge, owns_base=owned, scale=scale)
        except BaseException:
            if owned and was_opened:
                base.close()
            raise
    except BaseException:
        adapter.source.close()
        raise
    if note:
        found.notes.append(note)
    if is_named and found.base.commit and found.commit:
        _name_both(found)
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
    _name_both(found)
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


def _name_both(found: MergedCheckpoint) -> None:
    """Let a checkpoint be called `model+adapter`, with commits, where the model is no input of its own.

    It is a checkpoint of the Hub if both are.
    """
    model, adapter = (
        f"{each.label}@{each.commit}" if each.commit else each.label for each in (found.base, found)
    )
    if found.base.commit and found.commit:
        found.label = f"{model}+{found.label}"
    else:
        found.label, found.commit = f"{model}+{adapter}", None


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
