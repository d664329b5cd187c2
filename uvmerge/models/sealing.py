"""What transformers may not do while a checkpoint is read or run: ask, fetch, and load kernels."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..text import brief

_ABSENT = object()


@contextmanager
def sealed() -> Iterator[None]:
    """Inside the block, transformers cannot ask on the terminal, fetches nothing, loads no kernels of
    the Hub, and shows neither progress bars nor warnings."""
    from transformers.integrations import hub_kernels
    from transformers.utils import hub, logging

    shows_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    with ExitStack() as stack:
        for owner, name, value in (
            (sys, "stdin", io.StringIO()),
            (hub_kernels, "_kernels_enabled", False),
            (hub_kernels, "get_kernel_hub", _refuse_kernel),
            (hub.constants, "HF_HUB_OFFLINE", True),
        ):
            stack.enter_context(_replaced(owner, name, value))
        stack.callback(logging.set_verbosity, verbosity)
        stack.callback(logging.enable_progress_bar if shows_bars else logging.disable_progress_bar)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


def first_line(error: BaseException) -> str:
    """The first line of another package's error, cut to a length that fits into a sentence."""
    return brief((str(error).strip() or type(error).__name__).splitlines()[0], 300)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Inside the block, the attribute `name` of `owner` is `value`."""
    was = getattr(owner, name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if was is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, was)


def _refuse_kernel(name: str, *_: Any, **__: Any) -> Any:
    raise ImportError(f"it needs {name}, a kernel of the Hub, which is code and not run here")
