"""LAPACK's reduction to tridiagonal form, and the eigenproblem of tridiagonal matrices.

torch has no call for them. scipy publishes pointers to LAPACK's functions; called through ctypes they
run without the interpreter's lock, so that several threads reduce several matrices at once, which
`scipy.linalg.lapack` does not allow. scipy is imported at the first call. BLAS threads are held at
one meanwhile: the last bits would depend on their number.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import byref, c_char, c_double, c_int, c_void_p
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_Function = Callable[..., None]
_LETTERS = {"float32": "s", "float64": "d"}
_ROUTINES = {"sytrd": 10, "sterf": 4, "stemr": 21}  # LAPACK's names after s or d: arguments


@cache
def functions() -> dict[str, _Function] | None:
    """LAPACK's functions by name; None where scipy is missing or built with other integers."""
    try:
        from scipy.linalg import cython_lapack
        from threadpoolctl import ThreadpoolController  # noqa: F401
    except ImportError:
        return None
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    found: dict[str, _Function] = {}
    for routine, arguments in _ROUTINES.items():
        for letter in _LETTERS.values():
            capsule = cython_lapack.__pyx_capi__[letter + routine]
            signature = api.PyCapsule_GetName(capsule)
            if b"int *" not in signature:
                return None
            pointer = api.PyCapsule_GetPointer(capsule, signature)
            kind = ctypes.CFUNCTYPE(None, *[c_void_p] * arguments)
            found[letter + routine] = kind(pointer)
    return found


def version() -> str:
    """The version of scipy whose LAPACK is used; `none` where there is none."""
    try:
        return metadata.version("scipy") if functions() else "none"
    except metadata.PackageNotFoundError:
        return "unknown"


class _Hold:
    """Holds the BLAS libraries of this process at one thread while any thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limiter: Any = None

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._limiter = _controller().limit(limits=1, user_api="blas")
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._limiter.restore_original_limits()


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # finds the libraries that are loaded by now


_hold = _Hold()


def _call(name: str, *arguments: Any) -> int:
    """Call a routine whose last argument is `info`; returns `info`."""
    known, info = functions(), c_int(0)
    assert known is not None
    passed = [a.ctypes.data if isinstance(a, np.ndarray) else byref(a) for a in arguments]
    with _hold.one_thread():
        known[name](*passed, byref(info))
    return info.value


def tridiagonal_form(G: Array) -> tuple[Array, Array, Array] | None:
    """Reduce a symmetric G (r, r), C-contiguous float32 or float64, to T = Qᵀ G Q (`sytrd`).

    The upper triangle of G is replaced by reflectors: row i holds v_i from column i + 1 on, where
    v_i[i + 1] = 1 is not stored, and Q = Π (1 − τ_i v_i v_iᵀ).

    Returns:
        Diagonal (r,), off-diagonal (r − 1,) and τ (r − 1,), in the dtype of G; None on failure.
    """
    r, letter = len(G), _LETTERS[G.dtype.name]
    d, e, tau = (np.zeros(max(1, size), G.dtype) for size in (r, r - 1, r - 1))
    work = np.empty(64 * r, G.dtype)
    order = c_int(r)
    failed = _call(
        f"{letter}sytrd", c_char(b"L"), order, G, order, d, e, tau, work, c_int(len(work))
    )
    return None if failed else (d, e[: r - 1], tau[: r - 1])


def tridiagonal_values(d: Array, e: Array) -> Array | None:
    """All eigenvalues of T in float64, descending (`sterf`); None where they do not converge."""
    values, rest = d.astype(np.float64), np.append(e, 0.0).astype(np.float64)
    failed = _call("dsterf", c_int(len(d)), values, rest)
    return None if failed or not np.isfinite(values).all() else values[::-1].copy()


def tridiagonal_vectors(d: Array, e: Array, count: int) -> Array | None:
    """Eigenvectors (r, count) in float64 of the `count` largest eigenvalues of T, largest first
    (`stemr`: relatively robust representations)."""
    r = len(d)
    diagonal, rest = d.astype(np.float64), np.append(e, 0.0).astype(np.float64)
    Z, values = np.empty((count, r)), np.empty(r)  # Z holds Fortran's columns as rows
    support, work, whole = np.empty(2 * r, np.intc), np.empty(18 * r), np.empty(10 * r, np.intc)
    order, found, zero = c_int(r), c_int(0), c_double(0.0)
    failed = _call(
        "dstemr", c_char(b"V"), c_char(b"I"), order, diagonal, rest, zero, zero,
        c_int(r - count + 1), order, found, values, Z, order, c_int(count), support, c_int(1),
        work, c_int(len(work)), whole, c_int(len(whole)),
    )  # fmt: skip
    if failed or found.value != count or not np.isfinite(Z).all():
        return None
    return np.ascontiguousarray(Z[::-1].T)
