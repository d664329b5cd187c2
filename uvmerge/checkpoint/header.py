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
from dataclasses import dataclass
from typing import Any

import xxhash

from ..errors import InputRefused
from ..text import brief
from .source import AGAIN, Source
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
HEADER_LIMIT_BYTES = 100_000_000  # the limit of the reference implementation


@dataclass(frozen=True, slots=True)
class Entry:
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

    entries: tuple[Entry, ...]
    metadata: dict[str, str]
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
    fields = parse_json(bytes(raw), source.name, "its header")
    metadata = fields.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _refused(source, "__metadata__ is not a table of strings")
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


def parse_json(raw: bytes, file: str, what: str) -> dict[str, Any]:
    """A JSON object without repeated keys, or `InputRefused` naming the file."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in table if keys.count(key) > 1)
            raise InputRefused(file, f"{what} has the key '{brief(twice)}' twice", AGAIN)
        return table

    try:
        parsed = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise InputRefused(file, f"{what} is not valid JSON ({brief(error)})", AGAIN) from None
    if not isinstance(parsed, dict):
        raise InputRefused(file, f"{what} is not a JSON object", AGAIN)
    return parsed


def _entry(source: Source, name: str, field: Any, data_start: int) -> Entry:
    def refused(what: str) -> InputRefused:
        return _refused(source, f"tensor '{brief(name)}' {what}")

    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise refused("has a name that is not valid text") from None
    try:
        dtype, shape, (start, stop) = field["dtype"], tuple(field["shape"]), field["data_offsets"]
        numbers = (*shape, start, stop)
    except (TypeError, KeyError, ValueError):
        raise refused("lacks dtype, shape or offsets") from None
    if any(type(n) is not int or not 0 <= n < 2**100 for n in numbers) or stop < start:
        raise refused(f"has impossible shape or offsets {brief(field)}")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise refused(f"has the unknown dtype '{brief(dtype)}'")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != 8 * (stop - start):
        raise refused(
            f"of {dtype} {brief(list(shape))} needs {_figure(bits)} bytes, the header gives it"
            f" {stop - start:,}"
        )
    return Entry(name, dtype, shape, data_start + start, stop - start)


def _figure(bits: int) -> str:
    """A number of bits in bytes, also where it overflows every integer type."""
    return f"{-(-bits // 8):,}" if bits < 2**500 else "over 2^497"


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
