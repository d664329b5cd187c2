"""The anchor file: the leading singular vectors of a base, as a trainer reads them.

A safetensors file. Of each anchored matrix NAME (m, n) it holds `NAME.U` (m, k) and `NAME.V` (n, k)
in bfloat16 or float32, one after the other; where k ≥ min(m, n), the matrix is anchored as a whole and
has no factors. The header's `__metadata__` holds one JSON text with everything else, and its hash.

Truncation, and any change of the header, are found when the file is opened; a change of factors, when
these factors are read: each matrix has a hash of its own, so that nothing is read twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import xxhash

from ..checkpoint import header
from ..checkpoint.bounded import parse_json, read_start
from ..checkpoint.source import LocalFile
from ..errors import InputRefused
from ..text import brief

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1
KEY = "uvmerge_anchor"  # of the JSON text in the header's metadata
OWN_HASH = "metadata_xxh3_128"
FACTOR_DTYPES = ("BF16", "F32")
NO_HASH = "0" * 32  # in the place of a hash that is not known yet
_PANEL_ELEMENTS = 1 << 20  # hashed at a time
_BUILD = "Build it again: uvmerge anchor build BASE OUT.safetensors."


@dataclass(frozen=True)
class AnchoredMatrix:
    """One anchored matrix W (m, n), in the orientation of the model's parameter.

    Attributes:
        name: of the tensor in the base, like `model.layers.0.self_attn.q_proj.weight`.
        shape: (m, n), the shape of the stored tensor.
        k: how many singular vectors are anchored on either side; at most min(m, n).
        full: whether the whole matrix is anchored, k being min(m, n); no factors are stored.
        transposed: whether the tensor is (in, out), as Conv1D stores it: U is then of the inputs.
        dtype: of the base tensor, as safetensors names it: `BF16`.
        content_hash: xxh3-128 of the stored bytes of the base tensor (see `content_hash`).
        factors_hash: xxh3-128 of the bytes of U, then V; of nothing where `full`.
    """

    name: str
    shape: tuple[int, int]
    k: int
    full: bool
    transposed: bool
    dtype: str
    content_hash: str
    factors_hash: str

    def tensors(self, dtype: str) -> list[tuple[str, str, tuple[int, int]]]:
        """(name, dtype, shape) of the tensors that hold the factors, in the order of the file.

        Args:
            dtype: of the factors, as safetensors names it.
        """
        if self.full:
            return []
        m, n = self.shape
        return [(f"{self.name}.U", dtype, (m, self.k)), (f"{self.name}.V", dtype, (n, self.k))]

    def as_data(self) -> dict[str, Any]:
        """What the metadata says of the matrix, under its name."""
        return {
            "shape": list(self.shape), "k": self.k, "full": self.full,
            "transposed": self.transposed, "dtype": self.dtype,
            "content_xxh3_128": self.content_hash, "factors_xxh3_128": self.factors_hash,
        }  # fmt: skip

    @classmethod
    def read(cls, name: str, entry: Any) -> AnchoredMatrix:
        """The matrix of an entry that `as_data` made.

        Raises:
            ValueError: the entry is none.
        """
        try:
            m, n = entry["shape"]
            found = cls(
                name, (m, n), entry["k"], entry["full"], entry["transposed"], entry["dtype"],
                entry["content_xxh3_128"], entry["factors_xxh3_128"],
            )  # fmt: skip
        except (TypeError, KeyError, ValueError):
            raise ValueError("lacks shape, k or hashes") from None
        numbers = type(m) is type(n) is type(found.k) is int and 0 < found.k <= min(m, n)
        flags = type(found.full) is type(found.transposed) is bool
        texts = (found.dtype, found.content_hash, found.factors_hash)
        if not numbers or not flags or not all(isinstance(text, str) for text in texts):
            raise ValueError("has an impossible shape, k or hash")
        if found.full != (found.k == min(m, n)) or found.dtype not in header.FLOATS:
            raise ValueError("has an impossible k or dtype")
        return found


@dataclass(frozen=True)
class AnchorFile:
    """An anchor file that was opened; its header was read and checked, its factors not.

    Attributes:
        path: of the file.
        matrices: the anchored matrices by tensor name, in the order of the base.
        selection: what was asked for when the file was built: one of `top`, `rank`, `energy`, and the
            filters that were given (`layers`, `modules`, `include`, `exclude`, `stack`).
        dtype: of the factors, as safetensors names it: `BF16` or `F32`.
        version: of the uvmerge that built the file.
        made_with: what else determined the factors: other versions, device, precision.
        size_bytes: of the whole file.
    """

    path: Path
    matrices: Mapping[str, AnchoredMatrix] = field(repr=False)
    selection: Mapping[str, Any]
    dtype: str
    version: str
    made_with: Mapping[str, str]
    size_bytes: int
    _offsets: Mapping[str, tuple[int, int]] = field(repr=False)  # (offset, bytes) by factor

    @classmethod
    def open(cls, path: str | Path) -> AnchorFile:
        """Open an anchor file.

        Raises:
            InputRefused: names the file, which is truncated, was edited, is no anchor file, or was
                written by a newer uvmerge.
        """
        path = Path(path)
        with _source(path) as source:
            head = header.read(source)
            size_bytes = source.size
        said = _metadata(source.name, head.metadata)
        try:
            matrices = {n: AnchoredMatrix.read(n, e) for n, e in said["matrices"].items()}
            dtype, selection, version = said["dtype"], said["selection"], said["uvmerge"]
            made_with = said["made_with"]
            planned = [each for m in matrices.values() for each in m.tensors(dtype)]
            known = dtype in FACTOR_DTYPES and isinstance(made_with, dict)
            known = known and isinstance(selection, dict)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise InputRefused(source.name, f"its metadata is damaged ({error})", _BUILD) from None
        if not known or [(e.name, e.dtype, e.shape) for e in head.entries] != planned:
            raise InputRefused(source.name, "its tensors are not those of its metadata", _BUILD)
        offsets = {entry.name: (entry.offset, entry.size_bytes) for entry in head.entries}
        return cls(
            path, MappingProxyType(matrices), MappingProxyType(selection), dtype,
            str(version), MappingProxyType(made_with), size_bytes, MappingProxyType(offsets),
        )  # fmt: skip

    def factors(
        self,
        name: str,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """U (m, k) and V (n, k) of a matrix that is not `full`, checked against their hash.

        Args:
            name: one of `matrices`.
            device: where the factors are wanted.
            dtype: in which they are wanted; by default as they are stored.

        Raises:
            InputRefused: the factors are not those that were written.
        """
        matrix = self.matrices[name]
        if matrix.full:
            raise ValueError(f"{name} is anchored as a whole and has no factors")
        pieces = self._checked(matrix)
        shaped = zip(matrix.tensors(self.dtype), pieces, strict=True)
        U, V = (_tensor(raw, self.dtype, shape).to(device, dtype) for (_, _, shape), raw in shaped)
        return U, V

    def verify(self) -> None:
        """Read all factors and compare them with their hashes.

        Raises:
            InputRefused: names the file and the matrix whose factors are not those that were written.
        """
        for matrix in self.matrices.values():
            self._checked(matrix)

    def _checked(self, matrix: AnchoredMatrix) -> list[bytearray]:
        """The bytes of each factor of a matrix."""
        hasher, pieces = xxhash.xxh3_128(), []
        with _source(self.path) as source:
            for name, _, _ in matrix.tensors(self.dtype):
                offset, size_bytes = self._offsets[name]
                if source.size < offset + size_bytes:
                    raise _altered(source.name, matrix.name)
                raw = bytearray(size_bytes)
                source.read_into(offset, memoryview(raw))
                hasher.update(raw)
                pieces.append(raw)
        if hasher.hexdigest() != matrix.factors_hash:
            raise _altered(source.name, matrix.name)
        return pieces


def metadata(
    matrices: Mapping[str, AnchoredMatrix],
    selection: Mapping[str, Any],
    dtype: str,
    version: str,
    made_with: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The `__metadata__` of an anchor file. Its length does not depend on the hashes in it.

    Args:
        matrices: by name, in the order of the file.
        selection, dtype, version, made_with: as `AnchorFile` has them.
    """
    said = {
        "format": FORMAT,
        "uvmerge": version,
        "made_with": dict(made_with or {}),
        "dtype": dtype,
        "selection": dict(selection),
        "matrices": {name: matrix.as_data() for name, matrix in matrices.items()},
    }
    return {KEY: json.dumps(said | {OWN_HASH: _own_hash(said)}, separators=(",", ":"))}


def section(
    matrices: Mapping[str, AnchoredMatrix], dtype: str, said: dict[str, str]
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The header section of an anchor file, and (offset, bytes) of the factors of each matrix.

    With `NO_HASH` in the place of hashes, the layout is that of the finished file.

    Args:
        said: what `metadata` gives for these matrices.
    """
    tensors = [each for matrix in matrices.values() for each in matrix.tensors(dtype)]
    raw, entries = header.build(tensors, said)
    factors = iter(entries)
    pairs = ((n, next(factors), next(factors)) for n, m in matrices.items() if not m.full)
    return raw, {n: (U.offset, U.size_bytes + V.size_bytes) for n, U, V in pairs}


def is_anchor(path: Path) -> bool:
    """Whether a file begins as an anchor file does, be it whole or not."""
    start = f'{{"__metadata__":{{"{KEY}":'.encode()
    return read_start(path, 8 + len(start))[8:] == start


def content_hash(tensor: Tensor, stored_dtype: str) -> str:
    """xxh3-128 of the bytes that a tensor has in a checkpoint, row by row.

    A float32 parameter that was loaded from bfloat16 has the hash of the bfloat16 bytes. A value that
    `stored_dtype` cannot hold gives the hash of no checkpoint of that dtype.

    Args:
        tensor: of any shape, dtype and device; it stays as it is.
        stored_dtype: as safetensors names it, like `BF16` (`AnchoredMatrix.dtype`).
    """
    import torch

    hasher, wanted = xxhash.xxh3_128(), _torch_dtypes()[stored_dtype]
    flat = tensor.detach().reshape(-1)
    for piece in flat.split(_PANEL_ELEMENTS):
        piece = piece.cpu()
        stored = piece.to(wanted)
        if not torch.equal(stored.to(piece.dtype), piece):
            hasher.update(str(piece.dtype).encode())
            stored = piece
        hasher.update(stored.contiguous().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _metadata(file: str, told: Mapping[str, str]) -> dict[str, Any]:
    """The parsed text of the metadata, which has its own hash."""
    if KEY not in told:
        raise InputRefused(file, "is no anchor file of uvmerge", _BUILD)
    said = parse_json(told[KEY].encode(), file, "its metadata")
    if said.get("format") != FORMAT:
        what = f"is an anchor file of format {brief(said.get('format'))}"
        do = "Update uvmerge, or build the anchor file again."
        raise InputRefused(file, f"{what}, this uvmerge reads format {FORMAT}", do)
    own = said.pop(OWN_HASH, None)
    if own != _own_hash(said):
        raise InputRefused(file, "its metadata was changed after uvmerge wrote it", _BUILD)
    return said


def _own_hash(said: Mapping[str, Any]) -> str:
    text = json.dumps(said, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


@contextmanager
def _source(path: Path) -> Iterator[LocalFile]:
    source = LocalFile(path)
    try:
        yield source
    finally:
        source.close()


def _altered(file: str, name: str) -> InputRefused:
    what = f"the factors of {brief(name)} are not those that uvmerge wrote"
    return InputRefused(file, what, _BUILD)


def _tensor(raw: bytearray, dtype: str, shape: tuple[int, int]) -> Tensor:
    import torch

    if not raw:
        return torch.empty(shape, dtype=_torch_dtypes()[dtype])
    return torch.frombuffer(raw, dtype=_torch_dtypes()[dtype]).view(shape)


def _torch_dtypes() -> dict[str, torch.dtype]:
    import torch

    return {
        "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64
    }  # fmt: skip
