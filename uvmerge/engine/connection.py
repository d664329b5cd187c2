"""The connection to a Ray cluster, and what is said where Ray or a cluster is missing."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import RunFailed, UsageError


def imported() -> Any:
    """The package ray.

    Raises:
        UsageError: it is not installed; says how to install it.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of a change
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray", "needs Ray", "pip install 'uvmerge[ray]'") from error
    return ray


@contextmanager
def connection(address: str | None) -> Iterator[tuple[Any, bool]]:
    """The package ray, connected to a cluster: that of this process, or the one at `address`; and whether
    the connection is for this block alone.

    Args:
        address: `auto`, `local`, `host:port` or `ray://host:port`; None for a cluster that runs here
            or, where there is none, a new one of this machine alone, which ends with the block.

    Raises:
        RunFailed: no cluster answers there, or it is of another version of Ray or Python.
    """
    ray = imported()
    if ray.is_initialized():
        yield ray, False
        return
    options: dict[str, Any] = {} if address is None else {"address": address}
    if "://" not in (address or ""):
        options |= {"include_dashboard": False, "log_to_driver": False}
    with _same_sigterm():
        try:
            _refuse_silent(address)
            ray.init(**options, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            ray.shutdown()
            raise RunFailed(
                f"--address {address or 'auto'}",
                f"no Ray cluster can be reached: {first_line(error)}",
                "Start one with `ray start --head`, or leave --address out.",
            ) from error
    try:
        yield ray, True
    finally:
        ray.shutdown()


def _refuse_silent(address: str | None) -> None:
    """Raise an `OSError` where nothing listens: Ray would end this process."""
    if address not in (None, "auto", "local"):
        host, _, port = address.rpartition("://")[2].rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Ray sets a handler of its own when it connects; afterwards the former one is there again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
