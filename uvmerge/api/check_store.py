"""An output in an object store, fetched whole, so that `check` reads it as it reads a folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..engine.settings import Control
from ..errors import InputRefused
from ..hub.download import shares
from ..hub.locate import Local
from ..output import manifest
from ..output.places import Reference
from ..stores import reading
from . import fetching
from .settings import Watch


def fetched(out: Reference) -> Local:
    """The output in the cache of uvmerge: weights, side files, and whatever else its manifest names.

    Raises:
        InputRefused: nothing is there, it changed while it was fetched, or the disk has no room.
    """
    found = reading.opened(out, weights_only=False)
    if names := _named(found.folder):
        found = reading.opened(out, weights_only=False, also=names)
    whole = {name: [(0, source.size)] for name, source in found.sources.items()}
    wanted = {found.label: shares(found.sources, whole)}
    fetching.fetch(wanted, Watch(quiet=True).shown, Control())
    for source in found.sources.values():
        source.confirm()
    return Local(found.folder, found.label)


def _named(folder: Path) -> Collection[str]:
    """The files that the manifest in a folder names; none where it is missing or damaged."""
    try:
        content = manifest.read_checked(folder)
    except InputRefused:
        return ()
    return content["files"].keys() if content else ()
