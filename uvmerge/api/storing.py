"""An OUT in an object store: it is written to a folder here, then sent, then the folder is removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import xxhash

from ..engine.progress import Progress
from ..engine.settings import Control
from ..errors import Interrupted, UsageError
from ..output import manifest
from ..output.places import Reference, is_store, target_of
from ..stores import sending
from ..text import expanded
from .runs import Run

_RECORD = "sent.json"


def target_for(out: Reference) -> Path:
    """The real path of OUT; for one in a store, of the folder that is sent there.

    That folder is named as OUT is, so that the output is the same as one on this disk, and lies in a
    folder of its own in the working directory.
    """
    if not is_store(out):
        return target_of(out)
    url = str(out).rstrip("/")
    name = url.rpartition("/")[2]
    if not name or name in (".", ".."):
        raise UsageError(out, "names no prefix", "Write s3://bucket/prefix.")
    place = f"{name}.uvmerge-upload-{xxhash.xxh3_64_hexdigest(url.encode())[:8]}"
    return target_of(Path.cwd() / place) / name


def shown(out: Reference) -> Path | str:
    """OUT as a result names it."""
    return str(out) if is_store(out) else expanded(out)


def refuse_overlap(outs: Iterable[Reference], references: Iterable[Reference]) -> None:
    """Refuse an OUT in a store that is an input, lies inside one or contains one."""
    inputs = [f"{str(each).rstrip('/')}/" for each in references if is_store(each)]
    for out in filter(is_store, outs):
        mine = f"{str(out).rstrip('/')}/"
        if any(mine.startswith(each) or each.startswith(mine) for each in inputs):
            raise UsageError(out, "overlaps an input", "Write to a prefix beside the inputs.")


def refuse_for(outs: Sequence[Reference], option: str) -> None:
    """Refuse an option that needs an OUT on this disk."""
    if any(map(is_store, outs)):
        raise UsageError(
            option, "needs an OUT on this disk", "Name a folder, and copy it afterwards."
        )


def check(run: Run, overwrite: bool, progress: Progress) -> None:
    """Refuse a prefix that is taken, and say where the output is written first."""
    if is_store(run.out):
        names = [file.name for file in run.plan.files]
        sending.refuse_taken(str(run.out), _record(run), names, overwrite)
        progress.say(f"      written to {run.target} first, then sent to {run.out}")


def upload(run: Run, overwrite: bool, progress: Progress, control: Control) -> None:
    """Send a finished output to its store, and remove it here.

    Raises:
        Interrupted: `control` was stopped; the same command sends what is left.
        RunFailed: the store did not take it.
    """
    with progress.phase("sending", run.plan.bytes_out) as advance:

        def came(count: int) -> None:
            if control.stop.is_set():
                raise Interrupted(run.out, control.signal_number)
            advance(count)

        sending.send(run.target, str(run.out), _record(run), overwrite, came)
    if manifest.made_by_uvmerge(run.target):
        shutil.rmtree(run.target)
        _record(run).unlink()
        run.target.parent.rmdir()


def _record(run: Run) -> Path:
    return run.target.parent / _RECORD
