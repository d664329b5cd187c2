"""The program `uvmerge`, also as `python -m uvmerge`.

With `-m`, Python looks for modules in the current folder first, which may be a checkpoint with
Python files.
"""

import os
import sys

if __name__ == "__main__":
    first = sys.path[0] or os.curdir
    if os.path.isdir(first) and os.path.samefile(first, os.curdir):
        del sys.path[0]

from .cli.stopping import stop_at_once


def start() -> None:
    """Import the command line, which takes a moment in which Ctrl-C has to work, and run it."""
    stop_at_once()
    try:
        from .cli.main import program
    except (ImportError, MemoryError, OSError) as error:
        sys.exit(f"error: uvmerge cannot be loaded: {error or 'there is not enough memory'}")
    program()


if __name__ == "__main__":
    start()
