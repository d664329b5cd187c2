"""A checkpoint whose embeddings and heads have the rows of another vocabulary, row by row as they are read."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InputRefused
from .anatomy import anatomy_of
from .composed import Beside, ComposedCheckpoint, Part, same
from .folder import Checkpoint, Tensor
from .header import DTYPE_BITS, FLOATS
from .ties import heads, is_tied, token_embeddings
from .vocabulary import Origin

if TYPE_CHECKING:
    import torch

_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_MEAN_ROWS = 1024  # read at a time for a mean over all rows


def vocabulary_tensors(checkpoint: Checkpoint) -> dict[str, list[Tensor]]:
    """The tensors that have a row, or an element, for each token: `embeddings`, `head` and `bias`.

    Empty lists where the checkpoint has no embeddings of tokens.
    """
    anatomy = anatomy_of(checkpoint)
    tables = token_embeddings(anatomy)
    said = checkpoint.config.get("vocab_size")
    first = next((t for t in tables if t.shape[0] == said), tables[0] if tables else None)
    rows = None if first is None else first.shape[0]
    biases = [
        tensor
        for tensor in anatomy.outside
        if tensor.shape == (rows,) and anatomy.place(tensor).module == "head"
    ]
    return {
        "embeddings": [tensor for tensor in tables if tensor.shape[0] == rows],
        "head": [tensor for tensor in heads(anatomy) if tensor.shape[0] == rows],
        "bias": biases,
    }


def rows_of(checkpoint: Checkpoint) -> int:
    """The rows of a checkpoint's embeddings; 0 where it has none."""
    tables = vocabulary_tensors(checkpoint)["embeddings"]
    return tables[0].shape[0] if tables else 0


def realigned(
    role: str,
    checkpoints: Mapping[str, Checkpoint],
    origins: Sequence[Origin],
    rows: int,
    beside: Beside,
    head: str = "",
) -> ComposedCheckpoint:
    """The checkpoint of a role with other rows in its embeddings and heads.

    Args:
        origins: what each row is made of.
        rows: how many rows there are; those after `origins` are the mean of those before.
        beside: what the checkpoint has beside its tensors.
        head: name of a head that the checkpoint gets, since its embeddings alone were its head; or an
            empty text.

    Raises:
        InputRefused: embeddings differ in width, or hold no floating-point numbers.
    """
    own = checkpoints[role]
    kinds = {t.name: kind for kind, each in vocabulary_tensors(own).items() for t in each}

    def parts(file: str) -> Iterator[Part]:
        for entry in own.headers[file].entries:
            tensor = own.tensors[own.renamed.get(entry.name, entry.name)]
            kind = kinds.get(tensor.name)
            if kind is None:
                yield same(own, tensor)
                continue
            yield _aligned(tensor, kind, checkpoints, origins, rows)
            if head and kind == "embeddings":
                yield replace(_aligned(tensor, "head", checkpoints, origins, rows), name=head)

    files = {file: [*parts(file)] for file in own.headers}
    return ComposedCheckpoint.of([own], files, beside, apart=[head] if head else ())


def head_to_add(role: str, checkpoints: Mapping[str, Checkpoint]) -> str:
    """The name of the head that a checkpoint lacks since its embeddings are it, while others have one.

    It is empty where there is no such head, or where the checkpoint has several embeddings.
    """
    anatomy = anatomy_of(checkpoints[role])
    if not is_tied(anatomy) or len(vocabulary_tensors(checkpoints[role])["embeddings"]) != 1:
        return ""
    others = (vocabulary_tensors(other)["head"] for other in checkpoints.values())
    return next((tensors[0].name for tensors in others if tensors), "")


def _aligned(
    tensor: Tensor,
    kind: str,
    checkpoints: Mapping[str, Checkpoint],
    origins: Sequence[Origin],
    rows: int,
) -> Part:
    """One tensor with the rows of the output."""
    donors = {
        role: donor
        for role, each in checkpoints.items()
        if (donor := _counterpart(each, kind, tensor)) is not None
    }
    for role, donor in donors.items():
        if donor.shape[1:] != tensor.shape[1:]:
            raise InputRefused(
                f"{role} ({checkpoints[role].label})",
                f"{donor.name} has rows of {list(donor.shape[1:])}, others have {list(tensor.shape[1:])}",
                "Models of one width can be merged.",
            )
        if donor.dtype not in FLOATS or tensor.dtype not in FLOATS:
            what = f"{donor.name} holds {donor.dtype}, no floating-point numbers"
            raise InputRefused(f"{role} ({checkpoints[role].label})", what, "Dequantise it first.")
    shape = (rows, *tensor.shape[1:])
    made = Rows(tensor, donors, checkpoints, origins, rows)
    return Part(tensor.name, tensor.dtype, shape, made.read_into)


def _counterpart(checkpoint: Checkpoint, kind: str, like: Tensor) -> Tensor | None:
    """The tensor of a checkpoint that is to it what `like` is to another one.

    Of a head where the checkpoint stores none, these are its embeddings.
    """
    tensors = vocabulary_tensors(checkpoint)
    for each in tensors[kind]:
        if each.name == like.name:
            return each
    if tensors[kind]:
        return tensors[kind][0]
    return tensors["embeddings"][0] if kind == "head" and tensors["embeddings"] else None


class Rows:
    """The rows of one tensor, each copied, converted, averaged or zero.

    Args:
        tensor: the tensor whose dtype and width the rows have.
        donors: by role, the tensors that rows come from.
        origins, rows: see `realigned`.
    """

    def __init__(
        self,
        tensor: Tensor,
        donors: Mapping[str, Tensor],
        checkpoints: Mapping[str, Checkpoint],
        origins: Sequence[Origin],
        rows: int,
    ) -> None:
        self._dtype, self._donors, self._checkpoints = tensor.dtype, donors, checkpoints
        self._origins, self._rows = origins, rows
        self._width = math.prod(tensor.shape[1:])
        self._row_bytes = self._width * DTYPE_BITS[tensor.dtype] // 8
        self._mutex = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of the tensor from `offset` on."""
        size, stop = self._row_bytes, offset + len(buffer)
        for first, last in self._runs(offset // size, -(-stop // size)):
            start, end = max(first * size, offset), min(last * size, stop)
            self._fill(first, start - first * size, buffer[start - offset : end - offset])

    def _runs(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Rows in stretches that are read in one go: neighbours here that are neighbours there."""
        start = first
        for row in range(first + 1, last + 1):
            if row == last or not self._follows(row):
                yield start, row
                start = row

    def _follows(self, row: int) -> bool:
        before, here = self._place(row - 1), self._place(row)
        return before is not None and here == (before[0], before[1] + 1)

    def _place(self, row: int) -> tuple[str, int] | None:
        """The (role, row) of which a row is a copy of bytes; None where it is made."""
        origin = self._origins[row] if row < len(self._origins) else ()
        if len(origin) != 1 or origin[0][0] not in self._donors:
            return None
        return origin[0] if self._donors[origin[0][0]].dtype == self._dtype else None

    def _fill(self, row: int, within: int, buffer: memoryview) -> None:
        """The bytes of a run that begins with `row`, from `within` the run on."""
        place = self._place(row)
        if place is not None:
            role, at = place
            donor = self._donors[role]
            source = self._checkpoints[role].sources[donor.file]
            source.read_into(donor.offset + at * self._row_bytes + within, buffer)
            return
        buffer[:] = self._made(row)[within : within + len(buffer)]

    def _made(self, row: int) -> bytes:
        """The bytes of a row that is no copy."""
        if row >= len(self._origins):
            return self._mean_bytes
        present = [(role, at) for role, at in self._origins[row] if role in self._donors]
        if not present:
            return bytes(self._row_bytes)
        total = sum(self._values(role, at) for role, at in present)
        return self._as_bytes(total / len(present))

    def _values(self, role: str, row: int) -> Any:
        """A row of a donor, in float64."""
        import torch

        donor = self._donors[role]
        size = self._width * DTYPE_BITS[donor.dtype] // 8
        raw = self._checkpoints[role].read(donor.file, donor.offset + row * size, size)
        return torch.frombuffer(raw, dtype=getattr(torch, _DTYPES[donor.dtype])).double()

    @property
    def _mean_bytes(self) -> bytes:
        with self._mutex:
            return self._mean

    @cached_property
    def _mean(self) -> bytes:
        """The mean of all rows that stand for a token."""
        import torch

        dtype = getattr(torch, _DTYPES[self._dtype])
        count = len(self._origins)
        total = torch.zeros(self._width, dtype=torch.float64)
        for first in range(0, count, _MEAN_ROWS):
            several = min(_MEAN_ROWS, count - first)
            raw = bytearray(several * self._row_bytes)
            self.read_into(first * self._row_bytes, memoryview(raw))
            total += torch.frombuffer(raw, dtype=dtype).view(several, -1).double().sum(dim=0)
        return self._as_bytes(total / max(count, 1))

    def _as_bytes(self, values: torch.Tensor) -> bytes:
        import torch

        stored = values.to(getattr(torch, _DTYPES[self._dtype]))
        return bytes(stored.view(torch.uint8).numpy().data)
