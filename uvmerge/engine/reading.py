"""Matrices from checkpoints: read in their stored dtype, turned to (out, in), put on a device."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import xxhash
from torch import Tensor

from ..checkpoint.anatomy import View
from ..checkpoint.folder import Checkpoint
from ..errors import UsageError
from ..spectral import Log
from ..spectral.matrix import DenseMatrix
from ..spectral.precision import POLICIES, Precision
from ..spectral.source import Shelf
from .factors import FactorFolder
from .rounding import round_once
from .settings import NonfiniteOperand, Phases, Settings

TORCH_DTYPES = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64
}  # fmt: skip
PANEL_ELEMENTS = 1 << 18  # read and converted at a time; they fit a processor cache


class Span(NamedTuple):
    """A range of bytes of an input file, with the dtype of its values as safetensors names it."""

    file: str
    offset: int
    size_bytes: int
    dtype: str


def resolve_devices(device: str) -> tuple[str, ...]:
    """The devices that `auto`, `cpu`, `cuda` (every GPU of this machine) or `cuda:N` means.

    Raises:
        UsageError: the name is unknown, or this machine has no such GPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return (device,)
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise UsageError("--device", f"{device!r} is unknown", "Choose auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise UsageError(
            "--device",
            f"{device} is not there: torch {torch.__version__} sees {count} CUDA devices",
            "Use --device cpu.",
        )
    return (device,) if index else tuple(f"cuda:{i}" for i in range(count))


def _load_linear_algebra(devices: Iterable[str]) -> None:
    """Load the GPU's linear algebra in this thread: torch loads it at its first use, and fails where
    two threads come first (pytorch issue 90613)."""
    for device in devices if torch.cuda.is_available() else ():
        if device != "cpu":
            torch.linalg.inv(torch.eye(1, device=device))


class Reader:
    """What computing threads share: checkpoints by role, devices, precision and kept factors."""

    def __init__(
        self, checkpoints: Mapping[str, Checkpoint], settings: Settings, phases: Phases
    ) -> None:
        self.checkpoints, self.phases = checkpoints, phases
        self.devices = settings.devices
        self.precision = POLICIES[settings.precision]
        self.memory = (
            None
            if settings.factors is None
            else FactorFolder(settings.factors, settings.device, settings.keeps_whole_factors)
        )
        _load_linear_algebra(self.devices)
        self._threads = itertools.count()
        self._mine = threading.local()

    def prepare_thread(self) -> None:
        """Set up the calling thread, which is about to compute; called once in each.

        The thread's BLAS uses one CPU thread. Threads are spread evenly over the devices, each with
        a CUDA stream of its own.
        """
        torch.set_num_threads(1)
        self._mine.device = device = self.devices[next(self._threads) % len(self.devices)]
        if device != "cpu":
            torch.cuda.set_device(device)
            torch.cuda.set_stream(torch.cuda.Stream(device))

    @property
    def device(self) -> str:
        """The device of this thread."""
        return getattr(self._mine, "device", self.devices[0])

    def pieces(self, role: str, span: Span) -> Iterator[Tensor]:
        """The values of a span in their stored dtype, in flat tensors of up to `PANEL_ELEMENTS`."""
        most = PANEL_ELEMENTS * TORCH_DTYPES[span.dtype].itemsize
        for at in range(0, span.size_bytes, most):
            size = min(most, span.size_bytes - at)
            raw = self.checkpoints[role].read(span.file, span.offset + at, size)
            yield torch.frombuffer(raw, dtype=TORCH_DTYPES[span.dtype])

    def precision_for(
        self, stored: Iterable[Tensor], records: Iterable[dict[str, Any]] = ()
    ) -> Precision:
        """The policy for operands of one edit, or for matrices to compare.

        Where it is not the policy that was asked for, `records` say so.
        """
        precision = self.precision.holding(stored)
        if precision is not self.precision:
            for record in records:
                record["precision"] = precision.name
        return precision

    def is_finite(self, of: tuple[str, Span]) -> bool:
        """Whether no value of a (role, span) is NaN or Inf."""
        torch.set_num_threads(1)
        return all(all_finite(piece) for piece in self.pieces(*of))

    def matrix(
        self,
        name: str,
        stored: Tensor,
        device: str,
        precision: Precision,
        log: Log | None = None,
        operand: str = "",
    ) -> DenseMatrix:
        """`stored` (m, n) as a matrix that decomposes itself on `device`.

        Args:
            log: where the matrix notes what it is asked for.
            operand: what the log calls the matrix.
        """
        shelf = None
        if self.memory is not None:
            shape = "x".join(map(str, stored.shape))
            kind = str(stored.dtype).removeprefix("torch.")
            content = f"{xxhash.xxh3_128_hexdigest(as_bytes(stored))}-{shape}-{kind}"
            shelf = Shelf(self.memory, content)
        if device != "cpu":
            stored = stored.pin_memory().to(device, non_blocking=True)
        return DenseMatrix(name, stored, precision, (), shelf, log, operand)

    def span(self, role: str, view: View) -> Span:
        """Where the tensor of a view lies in its file; of fused experts, the expert of the view alone."""
        tensor = self.checkpoints[role].tensors[view.tensor]
        offset, size = tensor.offset, tensor.size_bytes
        if view.expert is not None:
            size //= view.experts_in(tensor.shape)
            offset += view.expert * size
        return Span(tensor.file, offset, size, tensor.dtype)

    def load(self, role: str, view: View) -> Tensor:
        """The values of `view` (m, n) = (out, in), in their stored dtype."""
        span, tensor = self.span(role, view), self.checkpoints[role].tensors[view.tensor]
        raw = self.checkpoints[role].read(span.file, span.offset, span.size_bytes)
        shape = tensor.shape if view.expert is None else view.stored
        values = torch.frombuffer(raw, dtype=TORCH_DTYPES[span.dtype]).view(shape)
        if view.transposed:
            values = values.mT
        if view.part is not None:
            start, stop, stride = view.part
            values = values[start:stop:stride]
        return values


def equal(base: Tensor, finetuned: Tensor) -> bool:
    """Whether two tensors of any dtypes hold the same values."""
    if base.dtype != finetuned.dtype:
        base, finetuned = base.double(), finetuned.double()
    return torch.equal(base, finetuned)


def panels(values: Tensor) -> Sequence[Tensor]:
    """A tensor in pieces of whole rows, which are rounded one after the other."""
    if values.dim() == 0:
        return [values]
    return values.split(max(1, PANEL_ELEMENTS * len(values) // max(values.numel(), 1)))


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or Inf. A finite sum is enough; only another needs a look at each value.

    On the CPU torch sums a large tensor of 16 bits eight times as fast in pieces.
    """
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    rows = values.mT if values.dim() == 2 and values.mT.is_contiguous() else values
    return all(
        bool(panel.sum(dtype=wide).isfinite()) or bool(panel.isfinite().all())
        for panel in ([rows] if rows.is_cuda else panels(rows))
    )


def refuse_nonfinite(stored: Mapping[str, Tensor]) -> None:
    """Give an edit up where an operand holds NaN or Inf."""
    if not all(map(all_finite, stored.values())):
        raise NonfiniteOperand


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of `tensor` in row-major order."""
    flat = tensor.contiguous().view(-1)
    if flat.numel() == 0:
        return memoryview(b"")
    return flat.view(torch.uint8).numpy().data


def converted(raw: bytearray | bytes | memoryview, stored: str, wanted: str) -> memoryview:
    """Bytes of the dtype `stored` as bytes of the dtype `wanted`, rounded once."""
    return as_bytes(
        round_once(torch.frombuffer(raw, dtype=TORCH_DTYPES[stored]), TORCH_DTYPES[wanted])
    )
