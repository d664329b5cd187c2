"""What click and the system refuse (words, files, memory, packages), as errors that say what to do."""

from __future__ import annotations

import errno
import os
import re

import click

from ..errors import RunFailed, UsageError, UvmergeError
from ..operations import option_hint
from ..text import brief

_FILES = (errno.EMFILE, errno.ENFILE)
_MEMORY = "Free some memory, or raise its limit (`ulimit -v`), and run the same command again."


def of_click(error: click.ClickException) -> UsageError:
    """The error to show for words that click cannot read."""
    context = getattr(error, "ctx", None) or click.Context(click.Command("uvmerge"))
    where = " ".join(context.command_path.split()[1:]) or "uvmerge"
    usage = context.get_usage()
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        return UsageError(f"{where} {brief(name)}", "is not an option", _option_hint(context, name))
    if isinstance(error, click.MissingParameter) and error.param is not None:
        metavar = error.param.make_metavar(context).removesuffix("...").strip("[]")
        return UsageError(where, f"{metavar} is missing", usage)
    if isinstance(error, (click.BadOptionUsage, click.BadParameter)):
        param = getattr(error, "param", None)
        name = getattr(error, "option_name", None) or (param.opts[-1] if param else "")
        what = re.sub(r"^Option '[^']+' ", "", error.message).rstrip(".")
        how = f"`uvmerge {where} --help` says what it takes."
        return UsageError(f"{where} {brief(name)}".rstrip(), what, how)
    return UsageError(where, brief(error.message).rstrip("."), usage)


def _option_hint(context: click.Context, name: str) -> str:
    """What to do about an option that the command of `context` does not have."""
    if not name.startswith("--"):
        return "Options of several letters begin with two dashes."
    opts = [opt for param in context.command.params for opt in param.opts]
    known = [opt[2:] for opt in opts if opt.startswith("--")]
    return option_hint(str(context.command.name), name[2:], known, "--")


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
