"""The program `uvmerge`, also as `python -m uvmerge`."""

import sys

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
