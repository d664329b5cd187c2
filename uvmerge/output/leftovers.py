"""What runs leave beside OUT that were killed after publishing it, or that another run replaces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from . import publishing
from .disk import disk_errors
from .journal import has_head, staging_root
from .lock import lock_of, locked


def is_published(out: Path, digest: str, head: dict[str, Any]) -> bool:
    """Whether a run with this head has published OUT and was killed before it cleared up."""
    place = staging_root(out, digest)
    if not publishing.is_published(place, out):
        return False
    with publishing.opened(place) as root:
        return has_head(root, head)


def clear_up(out: Path, digest: str) -> Path | None:
    """Remove what a run that was killed after publishing has left beside OUT.

    Returns:
        The new path of an old OUT that holds files of others; None where there was none.
    """
    place, lock = staging_root(out, digest), lock_of(out)
    if not any(map(os.path.lexists, (place, lock))):
        return None
    with disk_errors(out, out.parent), locked(lock):
        return discard(place, out) if os.path.lexists(place) else None


def discard(place: Path, out: Path) -> Path | None:
    """Remove a staging folder; an old OUT in it that holds files of others stays beside OUT."""
    with publishing.opened(place) as root:
        return publishing.clear_up(root, out)
