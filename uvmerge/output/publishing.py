"""How a staging folder takes the place of OUT, and what a kill at any moment leaves for the next run.

    out/        the folder in the making; its last rename publishes it
    new-<inode> the finished folder, named before it is exchanged with an old OUT; afterwards the old
                OUT has this name and another inode
    old-<n>     an old OUT, where the system cannot exchange two folders in one step
    factors.bin factors of an adapter, before it is known how many columns each needs
    trash/      what is being removed

A staging folder that is a link, belongs to another user or holds anything else is refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from pathlib import Path

from ..errors import InputRefused, RunFailed
from ..plan.emission import FACTORS
from . import manifest
from .places import not_empty
from .tree import Tree

JOURNAL, FOLDER, _TRASH = "journal.jsonl", "out", "trash"
_OLD = re.compile(r"new-\d+|old-\d+")
_FOLDERS = re.compile(rf"{FOLDER}|{_TRASH}|{_OLD.pattern}")
# Of a process that does a share: its rank, the number of ranks, and a number drawn at its start.
RANK_JOURNAL = re.compile(r"rank-(\d+)-of-(\d+)-[0-9a-f]{8}\.jsonl")
# By which nodes of a cluster show that they see the folder (see `lent`).
SEEN = re.compile(r"seen-[0-9a-f]{16}(-[0-9a-f]{1,64})?")
_FILES = re.compile(
    rf"({re.escape(JOURNAL)}|{RANK_JOURNAL.pattern}|{SEEN.pattern})(\.new)?|{re.escape(FACTORS)}"
)
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def opened(root: Path, *, create: bool = True) -> Tree:
    """The staging folder at `root`, checked; where others may write beside it, it is ours alone.

    Raises:
        InputRefused: what is there is no staging folder of this user.
    """
    with Tree.at(root.parent) as parent:
        shared = os.fstat(parent.descriptor).st_mode & stat.S_IWOTH
        tree = parent.folder(root.name, 0o700 if shared else 0o777, create=create)
    try:
        _refuse_foreign(tree)
        if shared:
            os.fchmod(tree.descriptor, 0o700)
    except BaseException:
        tree.close()
        raise
    return tree


def refuse_foreign(root: Path) -> None:
    """Refuse a staging folder, if there is one, that is not this user's or holds other things."""
    if os.path.lexists(root):
        opened(root, create=False).close()


def is_ours(root: Path) -> bool:
    """Whether what lies at `root` is a staging folder of this user."""
    try:
        refuse_foreign(root)
    except (InputRefused, OSError):
        return False
    return True


def is_bare(root: Path) -> bool:
    """Whether this is a staging folder that a killed run had just made, or had nearly removed."""
    if not is_ours(root):
        return False
    with opened(root, create=False) as tree:
        kept = re.compile(rf"{re.escape(JOURNAL)}|{FOLDER}|{RANK_JOURNAL.pattern}|{_OLD.pattern}")
        return not any(map(kept.fullmatch, tree.names()))


def _refuse_foreign(root: Tree) -> None:
    user = os.fstat(root.descriptor).st_uid
    if user != os.geteuid():
        raise InputRefused(
            root.path, f"belongs to another user ({user})", "Choose another place for the output."
        )
    for name in root.names():
        found = root.status(name)
        if found is None:  # another process has just renamed or removed it
            continue
        mode = found.st_mode
        expected = _FOLDERS if stat.S_ISDIR(mode) else _FILES if stat.S_ISREG(mode) else None
        if expected is None or not expected.fullmatch(name):
            raise InputRefused(
                root.path,
                f"is no staging folder of uvmerge: {name} does not belong there",
                "Look at it, move it away, and run again; uvmerge neither follows nor removes it.",
            )


def is_published(root: Path, out: Path) -> bool:
    """Whether OUT is the folder that the run of this staging folder has published."""
    if not os.path.lexists(root):
        return False
    with opened(root, create=False) as tree, Tree.at(out.parent) as parent:
        names = tree.names()
        there = parent.status(out.name)
        waiting = [name for name in names if name.startswith("new-")]
        return (
            JOURNAL in names
            and FOLDER not in names
            and there is not None
            and all(name == f"new-{there.st_ino}" for name in waiting)
        )


def take_up(root: Tree) -> None:
    """Make a finished folder that was not yet published the folder in the making again."""
    for name in root.names():
        if _is_finished(root, name) and root.status(FOLDER) is None:
            root.rename(name, root, FOLDER)


def publish(root: Tree, out: Path, overwrite: bool) -> None:
    """Rename the folder in the making to OUT; an old OUT moves into the staging folder."""
    with Tree.at(out.parent) as parent:
        there = parent.status(out.name)
        if there is not None and not stat.S_ISDIR(there.st_mode):
            raise RunFailed(out, "is no folder any more", "Move it away and run again.")
        if there is None or not _has_entries(parent, out.name):
            root.rename(FOLDER, parent, out.name)
        elif not overwrite:
            raise not_empty(out)
        else:
            made = root.status(FOLDER)
            assert made is not None
            new = f"new-{made.st_ino}"
            if root.status(new) is not None:  # an old OUT, since its inode is another one
                root.rename(new, root, _free_name(root, "old-"))
            root.rename(FOLDER, root, new)
            root.sync()
            if not exchanged(root, new, parent, out.name):
                parent.rename(out.name, root, _free_name(root, "old-"))
                root.rename(new, parent, out.name)
        parent.sync()
        root.sync()


def exchanged(tree: Tree, name: str, other: Tree, other_name: str) -> bool:
    """Exchange two folders in one step; False where the system or the disk has no such step."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    names = os.fsencode(name), os.fsencode(other_name)
    if call(tree.descriptor, names[0], other.descriptor, names[1], ctypes.c_uint(_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), other_name)


def clear_up(root: Tree, out: Path) -> Path | None:
    """Remove the staging folder; returns the new path of an old OUT that holds files of others."""
    kept = None
    with Tree.at(out.parent) as parent:
        root.remove(_TRASH)
        for name in filter(_OLD.fullmatch, root.names()):
            if _is_finished(root, name) or manifest.made_by_uvmerge(root.path / name):
                root.rename(name, root, _TRASH)  # by this name a killed removal is gone on with
                root.remove(_TRASH)
            else:
                kept = out.with_name(_free_name(parent, f"{out.name}.uvmerge-old-"))
                root.rename(name, parent, kept.name)
        others = [name for name in root.names() if name.startswith(("rank-", "seen-"))]
        for name in (FOLDER, FACTORS, *others, f"{JOURNAL}.new", JOURNAL):
            root.remove(name)
        os.rmdir(root.path.name, dir_fd=parent.descriptor)
    return kept


def _is_finished(root: Tree, name: str) -> bool:
    """Whether this is a finished folder, and not the old OUT that it was exchanged with."""
    found = root.status(name)
    return found is not None and name == f"new-{found.st_ino}"


def _has_entries(parent: Tree, name: str) -> bool:
    with parent.folder(name) as folder:
        return bool(folder.names())


def _free_name(tree: Tree, start: str) -> str:
    number = 1
    while tree.status(f"{start}{number}") is not None:
        number += 1
    return f"{start}{number}"
