"""Python's garbage collector of cycles, switched off while headers are read and plans are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_later() -> Iterator[None]:
    """Switch the collection of cycles off inside the block.

    Reading headers or plans makes a hundred thousand small objects that all stay alive. The collector would
    look through them again and again, which takes a third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
