"""Tensors of a file that was made again, beside those of the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint.adapter import is_adapter
from ..checkpoint.anatomy import tensor_of
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import FLOATS
from ..errors import InputRefused, listed
from ..hub.items import sha256_of
from ..hub.listing import Listing
from ..hub.session import is_unreachable
from ..output.lock_file import Lock
from .opening import open_checkpoint
from .settings import OpenSettings

IDENTICAL, EQUAL, DIFFERENT = "identical", "equal", "different"
PANEL_BYTES = 8 << 20
_PRECISION = {"exact": 1e-6, "fast": 1e-3}  # of the edit, as docs/numbers.md states them


@dataclass(frozen=True)
class Compared:
    """How a file compares.

    Attributes:
        verdict: `identical`, `equal` or `different`.
        why: of a file that is not identical, what was found.
        within: the largest relative difference of a tensor, ‖A − B‖_F / ‖B‖_F, where it is `equal`.
    """

    verdict: str
    why: str = ""
    within: float = 0.0

    @property
    def is_problem(self) -> bool:
        """Whether the file is different."""
        return self.verdict == DIFFERENT

    @property
    def told(self) -> str:
        """The comparison in words."""
        within = f" within {self.within:.1e}" if self.verdict == EQUAL else ""
        return f"{self.verdict}{within}{': ' if self.why else ''}{self.why}"

    def as_data(self) -> dict[str, Any]:
        """The comparison as JSON-able data."""
        return {"verdict": self.verdict, "why": self.why, "within": self.within}


def compared(
    out: Path, listing: Listing, content: Mapping[str, Any], lock: Lock, names: Sequence[str]
) -> dict[str, Compared]:
    """By file whose bytes differ, how far its tensors are from those of the Hub.

    A tensor that no step edits has to be the same. An edited one is equal where it differs by no
    more than the rounding of its dtype, or the error that its precision allows. A file of the Hub
    that is not the one of the lock is different in any case.
    """
    weights = [name for name in names if name.endswith(".safetensors")]
    found: dict[str, Compared] = {}
    if is_adapter(out):  # the same edit may have other factors
        return {name: Compared(DIFFERENT, "other factors") for name in weights}
    with ExitStack() as opened:
        try:
            if weights:
                reference, settings = f"hf://{listing.repo}@{listing.commit}", OpenSettings()
                ours = opened.enter_context(Checkpoint.open(out))
                theirs = opened.enter_context(
                    open_checkpoint(reference, settings, whole=False, by_ranges=True)
                )
        except InputRefused as refused:
            if (cause := refused.__context__) is not None and is_unreachable(cause):  # type: ignore[arg-type]
                raise
            why = f"cannot be read at the Hub: {refused.what}"
            return {name: Compared(DIFFERENT, why) for name in weights}
        for name in weights:
            found[name] = _file(name, ours, theirs, content)
            if _is_replaced(listing, lock, name):
                why = f"is not the file that was pushed; {found[name].why}".rstrip("; ")
                found[name] = Compared(DIFFERENT, why)
            elif sha256_of(out / name) == lock.files[name]:
                found[name] = Compared(DIFFERENT, f"at the Hub; {found[name].why}".rstrip("; "))
    return found


def _is_replaced(listing: Listing, lock: Lock, name: str) -> bool:
    address = listing.files[name]
    return address.is_large and address.etag != lock.files[name]


def _file(name: str, ours: Checkpoint, theirs: Checkpoint, content: Mapping[str, Any]) -> Compared:
    """How the tensors of one file compare."""
    edited = {tensor_of(label) for label in content["edited"]} | set(content["reset"])
    bound = _PRECISION.get(str(content["settings"].get("precision")), 0.0)
    one = {t.name: t for t in ours.tensors.values() if t.file == name}
    two = {t.name: t for t in theirs.tensors.values() if t.file == name}
    others = sorted(one.keys() ^ two.keys())
    others += [n for n in one.keys() & two.keys() if _kind(one[n]) != _kind(two[n])]
    worst = 0.0
    for tensor in (one[n] for n in one if n in two and n not in others):
        distance = _distance(ours, tensor, theirs, two[tensor.name])
        most = _bound(tensor, bound) if tensor.name in edited else 0.0
        if not distance <= most:
            others.append(tensor.name)
        else:
            worst = max(worst, distance)
    if others:
        return Compared(DIFFERENT, listed(others, "tensor"))
    return Compared(EQUAL, "", worst) if worst else Compared(DIFFERENT, "other header")


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tuple(tensor.shape)


def _bound(tensor: Tensor, precision: float) -> float:
    import torch

    from ..engine.reading import TORCH_DTYPES

    if tensor.dtype not in FLOATS:
        return 0.0
    return max(precision, float(torch.finfo(TORCH_DTYPES[tensor.dtype]).eps))


def _distance(ours: Checkpoint, one: Tensor, theirs: Checkpoint, two: Tensor) -> float:
    """‖A − B‖_F / ‖B‖_F; 0 where the bytes are the same, infinite where no number tells it."""
    import torch

    from ..engine.reading import TORCH_DTYPES

    apart = norm = 0.0
    is_same = True
    for a, b in zip(_panels(ours, one), _panels(theirs, two), strict=True):
        if a == b and one.dtype not in FLOATS:
            continue
        is_same = is_same and a == b
        if one.dtype not in FLOATS:
            return float("inf")
        x, y = (torch.frombuffer(p, dtype=TORCH_DTYPES[one.dtype]).double() for p in (a, b))
        apart += float((x - y).square().sum())
        norm += float(y.square().sum())
    if is_same:
        return 0.0
    found = (apart / norm) ** 0.5 if norm else float("inf")
    return max(found, 1e-300) if found == found else float("inf")


def _panels(checkpoint: Checkpoint, tensor: Tensor) -> Iterator[bytearray]:
    for start in range(0, tensor.size_bytes, PANEL_BYTES):
        count = min(PANEL_BYTES, tensor.size_bytes - start)
        yield checkpoint.read(tensor.file, tensor.offset + start, count)
