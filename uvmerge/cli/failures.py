"""What the system refuses (files, memory, packages), as errors that say what to do."""

from __future__ import annotations

import errno
import os

from ..errors import RunFailed, UsageError, UvmergeError

_FILES = (errno.EMFILE, errno.ENFILE)
_MEMORY = "Free some memory, or raise its limit (`ulimit -v`), and run the same command again."


def of_system(error: OSError | MemoryError | ImportError) -> UvmergeError:
    """The error to show for one that no module of uvmerge has given words."""
    if isinstance(error, MemoryError):
        return RunFailed("memory", "there is not enough of it", _MEMORY)
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package not in ("", "uvmerge"):
        what = f"{package} is not installed, and this command needs it"
        return RunFailed("import", what, f"Install it: `pip install {package}`.")
    if isinstance(error, ImportError):
        # What the loader of libraries says when an address space is too small.
        full = "map segment" in str(error) or "allocate memory" in str(error)
        do = _MEMORY if full else "Install uvmerge again."
        return RunFailed("import", str(error), do)
    if not _is_somewhere():
        do = "Change to a folder that exists."
        return UsageError("the current folder", "does not exist any more", do)
    if error.errno == errno.ENOMEM:
        return RunFailed("memory", "there is not enough of it", _MEMORY)
    do = "Raise the limit of open files: `ulimit -n 4096`." if error.errno in _FILES else ""
    what = f"cannot be read or written: {error.strerror or error}"
    return RunFailed(error.filename or "output", what, do)


def _is_somewhere() -> bool:
    """Whether the current folder exists."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True
