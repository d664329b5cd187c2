"""Where an output may lie: never in an input, never over files that uvmerge did not write.

Every check of this module runs before anything is written; of OUT's folders, those that are missing
are made here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..checkpoint.adapter_sums import terms_of
from ..errors import InputRefused, RunFailed, UsageError, listed
from ..text import expanded
from .tree import Tree

Reference = str | Path

# The files of a report, and the unfinished ones that a killed run may leave.
_REPORT_FILES = re.compile(
    r"(report\.json|matrices\.csv|scores\.csv|report\.html|report\.png)(\.new)?"
)
_STORE = re.compile(r"(?!hf:|https?:|file:|local:)[a-z][a-z0-9+.-]*://[^/].*", re.DOTALL)
_LONGEST_SUFFIX = ".uvmerge-partial-01234567"


def is_store(reference: Reference) -> bool:
    """Whether a reference is the URL of an object store, like `s3://bucket/prefix`."""
    return isinstance(reference, str) and _STORE.fullmatch(reference) is not None


def target_of(out: Reference) -> Path:
    """The real path of OUT, links followed.

    Raises:
        UsageError: OUT is empty, holds a NUL, or is a link to a file or to nothing.
    """
    do = "Name a folder that does not exist yet."
    if not str(out):
        raise UsageError("OUT", "is empty", do)
    refuse_store(out)
    out = expanded(out)
    if "\0" in str(out) or (os.path.islink(out) and not os.path.isdir(out)):
        raise UsageError(out, "is a file", do)
    return Path(os.path.realpath(out))


def refuse_store(out: Reference) -> None:
    """Refuse an OUT in an object store, where a command writes to this disk alone."""
    if is_store(out):
        what = "is in an object store, to which this command does not write"
        raise UsageError(out, what, "Name a folder or file on this disk.")


def target_of_file(out: Reference) -> Path:
    """The real path of an OUT that is one file; links above it are followed, it is no link itself.

    Raises:
        UsageError: OUT is empty, holds a NUL, or is a folder or a link.
    """
    do = "Name a file that does not exist yet."
    if not str(out):
        raise UsageError("OUT", "is empty", do)
    refuse_store(out)
    out = expanded(out)
    if "\0" in str(out) or not out.name:
        raise UsageError("OUT", "is no name that a file can have", do)
    if os.path.islink(out) or os.path.isdir(out):
        raise UsageError(out, "is a link" if os.path.islink(out) else "is a folder", do)
    return Path(os.path.realpath(out.parent)) / out.name


def local_folders(references: Sequence[Reference]) -> list[Path]:
    """The references that are folders on this disk."""
    named = ([t.reference for t in terms_of(r)] or [str(r)] for r in references)
    folders = (Path(os.path.expanduser(reference)) for several in named for reference in several)
    return [folder for folder in folders if os.path.isdir(folder)]


def check_apart(out: Path, folders: Sequence[Path], what: str = "input") -> None:
    """Refuse an OUT that is one of `folders`, lies inside one or contains one; links are followed.

    Args:
        what: what the message calls the folders, such as `input`.

    Raises:
        UsageError: OUT, and the folder that is in the way.
    """
    target = Path(os.path.realpath(out))
    for folder in folders:
        other = Path(os.path.realpath(folder))
        if target == other:
            how = "is"
        elif target.is_relative_to(other):
            how = "lies inside"
        elif other.is_relative_to(target):
            how = "contains"
        else:
            continue
        do = f"Write to a folder beside the {what}s."
        raise UsageError(out, f"{how} the {what} {folder}", do)


def check_all_apart(targets: Sequence[Path], factors: Path | None, inputs: Sequence[Path]) -> None:
    """`check_apart` for several outputs and the folder of kept factors."""
    for target in targets:
        check_apart(target, inputs)
    if factors is not None:
        check_apart(factors, inputs)
        for target in targets:
            check_apart(factors, [target], "output")


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse an OUT that cannot become a folder, or that is a folder with entries.

    Raises:
        UsageError: the name is too long or impossible, OUT is a file or a mount point, or the folder
            that is to hold it is none or is read-only.
        InputRefused: OUT has entries, and not `overwrite`, or is read-only.
    """
    _refuse_long_name(out)
    if os.path.ismount(out):
        what = "is a mount point, which no folder can be renamed to"
        raise UsageError(out, what, "Name a folder in it.")
    if out.is_dir():
        if any(out.iterdir()):
            if not overwrite:
                raise not_empty(out)
            if not os.access(out, os.W_OK):  # a folder is not moved without this right
                raise InputRefused(out, "is read-only", "Allow writing to it: chmod u+w.")
    elif os.path.lexists(out):
        raise UsageError(out, "is a file", "Name a folder that does not exist yet.")
    refuse_read_only(out, out.parent)


def check_file(out: Path, overwrite: bool) -> None:
    """Refuse an OUT that cannot become a file, or that is one.

    Raises:
        UsageError: the name is too long or impossible, OUT is no file, or the folder that is to hold
            it is none or is read-only.
        InputRefused: OUT is a file, and not `overwrite`.
    """
    _refuse_long_name(out, "file")
    if os.path.lexists(out):
        if out.is_symlink() or not out.is_file():
            raise UsageError(out, "is no file", "Name a file that does not exist yet.")
        if not overwrite:
            raise InputRefused(out, "is there already", "Name another file, or pass --overwrite.")
    refuse_read_only(out, out.parent)


def _refuse_long_name(out: Path, kind: str = "folder") -> None:
    try:
        longest = len(os.fsencode(out.name)) + len(_LONGEST_SUFFIX)
        if "\0" in str(out) or longest > os.pathconf(out.parent, "PC_NAME_MAX"):
            raise UsageError(out, f"is too long a name, or none that a {kind} can have")
    except OSError:
        raise UsageError(out.parent, "is not a folder", "Name another place.") from None


def refuse_read_only(where: Reference, folder: Path) -> None:
    """Refuse a place in a folder that cannot be written to."""
    if not os.access(folder, os.W_OK):
        raise UsageError(where, f"cannot be written: {folder} is read-only", "Name another folder.")


@contextmanager
def made_parents(outs: Iterable[Path]) -> Iterator[None]:
    """Make the missing folders above outputs; after an error in the block, remove those still empty.

    Raises:
        UsageError: something above OUT is no folder or cannot be written to, or a name is impossible.
    """
    made: list[Path] = []
    try:
        for out in outs:
            missing = [folder for folder in out.parents if not os.path.lexists(folder)]
            if missing:
                refuse_read_only(out, nearest_folder(out))
            for folder in reversed(missing):
                _make(folder, made)
            if not out.parent.is_dir():
                raise UsageError(out.parent, "is not a folder", "Name another place.")
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise


def nearest_folder(place: Path) -> Path:
    """The nearest folder above a place that is there."""
    return next(folder for folder in place.absolute().parents if folder.is_dir())


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder that outlasts a loss of power, unless another run has just made it."""
    try:
        folder.mkdir()
        made.append(folder)
        with Tree.at(folder.parent) as above:
            above.sync()
    except FileExistsError:
        return
    except NotADirectoryError:
        raise UsageError(folder.parent, "is not a folder", "Name another place.") from None
    except OSError as error:
        what = f"cannot be made: {error.strerror}"
        raise UsageError(folder, what, "Name another place.") from None


def not_empty(out: Path) -> InputRefused:
    """The error for an OUT that has entries."""
    names = sorted(path.name for path in out.iterdir())
    return InputRefused(
        out,
        f"is not empty ({listed(names, 'entry', 3).replace('entrys', 'entries')})",
        "Choose another folder, or pass --overwrite.",
    )


def report_folder(
    folder: Reference,
    overwrite: bool = False,
    inputs: Sequence[Reference] = (),
    factors: Reference | None = None,
) -> Path:
    """The real path of a report's folder.

    Raises:
        UsageError: the folder cannot be made or written to, or overlaps a local input or `factors`.
        InputRefused: the folder holds files that are no report, and not `overwrite`.
    """
    target = target_of(folder)
    check_apart(target, local_folders(inputs))
    if factors is not None:
        check_apart(target, [expanded(factors)], "other output")
    try:
        target.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(folder, f"cannot be a folder: {error.strerror}", "Name another.") from None
    there = next(path for path in (target, *target.parents) if path.exists())
    if not there.is_dir():
        raise UsageError(folder, "is a file", "Name a folder for the report.")
    refuse_read_only(folder, there)
    if there == target and not overwrite:
        _refuse_other_files(target)
    return target


def _refuse_other_files(target: Path) -> None:
    try:
        strange = sorted(name for name in os.listdir(target) if not _REPORT_FILES.fullmatch(name))
    except OSError as error:
        raise RunFailed(target, f"cannot be read: {error.strerror}") from error
    if strange:
        raise InputRefused(
            target,
            f"is not empty, and holds more than a report ({strange[0]})",
            "Name another folder, or pass --overwrite to write the report beside it.",
        )
