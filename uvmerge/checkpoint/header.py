"""One safetensors file: eight bytes of length, a JSON header, then the tensors back to back.

https://github.com/huggingface/safetensors#format. Reading is strict where a loader would be
lenient: every byte of the data section belongs to exactly one tensor, and nothing that the file
claims about itself is believed before it has been compared with the file's real size.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import xxhash

from ..errors import InputRefused
from ..text import brief
from .bounded import AGAIN, is_text, parse_json
from .source import Source
from .strangers import refuse_pointer

# Bits per element of every dtype the format knows, in the format's own names.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
FLOATS = ("F16", "BF16", "F32", "F64")
# What `--dtype` takes, and its name in the format.
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
DTYPE_WORDS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}  # what people also write
HEADER_LIMIT_BYTES = 100_000_000  # the limit of the reference implementation
_TOO_MANY = 2**500  # elements, or bits of a tensor: more than any file has


class Entry(NamedTuple):
    """What the header says of one tensor; `offset` is in bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor on disk: dtype as safetensors spells it, offset in bytes within `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Header:
    """The parsed start of a file.

    Attributes:
        entries: the tensors in the order of their bytes.
        metadata: the `__metadata__` of the file (`{"format": "pt"}` from transformers).
        data_start: position of the first tensor byte = length of the header section.
        digest: xxh3-128 of the header section, which stands for names, dtypes and shapes.
    """

    entries: tuple[Entry, ...] = field(repr=False)
    metadata: dict[str, str] = field(repr=False)
    data_start: int
    digest: str


def read(source: Source) -> Header:
    """Parse and validate the header of `source`; `InputRefused` names the file and the figures."""
    if source.size < 8:
        raise _refused(source, f"{source.size} bytes, too short for a safetensors file")
    prefix = bytearray(8)
    source.read_into(0, memoryview(prefix))
    (length,) = struct.unpack("<Q", prefix)
    # A pointer's first bytes, read as a length, would be exabytes.
    if prefix.startswith((b"version ", b"# xet ve")):
        start = bytearray(min(64, source.size))
        source.read_into(0, memoryview(start))
        refuse_pointer(source.name, bytes(start), source.size)
    if length > min(HEADER_LIMIT_BYTES, source.size - 8):
        raise _refused(
            source,
            f"claims a header of {length:,} bytes, the file has {source.size:,} bytes"
            f" in all (limit {HEADER_LIMIT_BYTES:,})",
        )
    raw = bytearray(length)
    source.read_into(8, memoryview(raw))
    fields = parse_json(bytes(raw), source.name, "its header", depth=0, constants=False)
    metadata = fields.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _refused(source, "__metadata__ is not a table of strings")
    if odd := [text for pair in metadata.items() for text in pair if not is_text(text)]:
        raise _refused(source, f"__metadata__ holds '{brief(odd[0])}', which is not valid text")
    data_start = 8 + length
    entries = [_entry(source, name, field, data_start) for name, field in fields.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.size_bytes))
    _check_no_holes(source, entries, data_start)
    return Header(tuple(entries), metadata, data_start, xxhash.xxh3_128_hexdigest(prefix + raw))


def build(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str]
) -> tuple[bytes, list[Entry]]:
    """The header section for `(name, dtype, shape)` in this order, and the entry of each tensor."""
    fields: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    sizes, position = [], 0
    for name, dtype, shape in tensors:
        count = size_bytes(dtype, shape)
        span = [position, position + count]
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": span}
        sizes.append((name, dtype, shape, position, count))
        position += count
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data section starts on a multiple of eight
    section = struct.pack("<Q", len(text)) + text
    return section, [Entry(n, d, s, len(section) + at, size) for n, d, s, at, size in sizes]


def size_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor occupies (Python integers: nothing overflows)."""
    return math.prod(shape) * DTYPE_BITS[dtype] // 8


def _entry(source: Source, name: str, field: Any, data_start: int) -> Entry:
    if not is_text(name):
        raise _refused_tensor(source, name, "has a name that is not valid text")
    try:
        dtype, shape, (start, stop) = field["dtype"], tuple(field["shape"]), field["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _refused_tensor(source, name, "lacks dtype, shape or offsets") from None
    for n in (*shape, start, stop):
        if type(n) is not int or not 0 <= n < 2**100:
            raise _impossible(source, name, field)
    if stop < start:
        raise _impossible(source, name, field)
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _refused_tensor(source, name, f"has the unknown dtype '{brief(dtype)}'")
    bits = _count(shape) * DTYPE_BITS[dtype]
    if bits != 8 * (stop - start):
        what = f"of {dtype} {brief(list(shape))} needs {_figure(bits)} bytes"
        raise _refused_tensor(source, name, f"{what}, the header gives it {stop - start:,}")
    return Entry(name, dtype, shape, data_start + start, stop - start)


def _impossible(source: Source, name: str, field: Any) -> InputRefused:
    return _refused_tensor(source, name, f"has impossible shape or offsets {brief(field)}")


def _refused_tensor(source: Source, name: str, what: str) -> InputRefused:
    return _refused(source, f"tensor '{brief(name)}' {what}")


def _count(shape: tuple[int, ...]) -> int:
    """Elements of a tensor, or the first product of its sides that is larger than any file."""
    count = 0 if 0 in shape else 1
    for n in shape:
        count *= n
        if count > _TOO_MANY:
            break
    return count


def _figure(bits: int) -> str:
    """A number of bits in bytes, also where it overflows every integer type."""
    return f"{-(-bits // 8):,}" if bits < _TOO_MANY else "over 2^497"


def _check_no_holes(source: Source, entries: list[Entry], position: int) -> None:
    for entry in entries:
        if entry.offset != position:
            kind = (
                "overlaps the one before" if entry.offset < position else "leaves a hole before it"
            )
            raise _refused(source, f"tensor '{brief(entry.name)}' {kind} (byte {entry.offset:,})")
        position += entry.size_bytes
    if position != source.size:
        kind = "truncated" if position > source.size else "has trailing bytes"
        raise _refused(source, f"{kind}: {source.size:,} bytes, its header describes {position:,}")


def _refused(source: Source, what: str) -> InputRefused:
    return InputRefused(source.name, what, AGAIN)
