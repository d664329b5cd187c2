"""Pickle checkpoints (`pytorch_model.bin`), read only on request and with `weights_only=True`.

`PickledFile` presents each pickle as a safetensors file, so that no other module handles pickles.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputRefused
from ..text import brief
from . import header
from .bounded import is_text
from .source import FileState, Source
from .strangers import pickles

if TYPE_CHECKING:
    from torch import Tensor


class PickledFile:
    """The tensors of one pickle behind a safetensors header (see `source.Source`)."""

    is_remote = False

    def __init__(self, path: Path, name: str) -> None:
        import torch

        self.name = name
        self._path, self.state = path, FileState.of(path)
        codes = {
            torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32",
            torch.float64: "F64", torch.int8: "I8", torch.uint8: "U8", torch.int16: "I16",
            torch.int32: "I32", torch.int64: "I64", torch.bool: "BOOL",
        }  # fmt: skip
        tensors = _load(path)
        for key, value in tensors.items():
            if not is_text(key):
                raise InputRefused(path.name, f"the name '{brief(key)}' is not valid text")
            if value.dtype not in codes:
                raise InputRefused(path.name, f"{key} has the dtype {value.dtype}")
            if value.layout is not torch.strided or value.device.type != "cpu":
                raise InputRefused(
                    path.name, f"{key} is not a plain tensor ({value.layout}, {value.device})"
                )
        self._section, entries = header.build(
            [(key, codes[value.dtype], tuple(value.shape)) for key, value in tensors.items()],
            {"format": "pt"},
        )
        self._tensors = [(entry, tensors[entry.name]) for entry in entries]
        self.size = len(self._section) + sum(entry.size_bytes for entry in entries)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        stop = offset + len(buffer)
        head = self._section[offset:stop]
        buffer[: len(head)] = head
        for entry, tensor in self._tensors:
            first, last = max(offset, entry.offset), min(stop, entry.offset + entry.size_bytes)
            if first < last:
                piece = _bytes(tensor)[first - entry.offset : last - entry.offset]
                buffer[first - offset : last - offset] = piece

    def prepare(self, spans: Iterable[tuple[int, int]]) -> None:
        """Nothing: a file on disk is at hand."""

    def has_changed(self) -> bool:
        return not self.state.holds(self._path)

    def close(self) -> None:
        self._tensors = []


def load_pickles(folder: Path) -> dict[str, Source]:
    """The pickle files in `folder` as sources, by the safetensors file name that each becomes."""
    names: dict[str, Source] = {}
    for path in pickles(folder):
        stem = path.stem.replace("pytorch_model", "model").replace("consolidated", "model")
        name = f"{stem if stem.startswith('model') else 'model'}.safetensors"
        if not is_text(name):
            what = f"the name of '{brief(path.name)}' is not valid text"
            raise InputRefused(folder, what, "Rename the file in UTF-8.")
        if name in names:
            raise InputRefused(folder, f"{path.name} and another file would both become {name}")
        names[name] = PickledFile(path, name)
    return names


def _load(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # a broken or hostile pickle may raise anything
        raise InputRefused(
            path.name,
            "cannot be loaded as plain tensors (weights_only=True):"
            f" {str(error).splitlines()[0] if str(error) else 'not a PyTorch file'}",
            "The file holds more than tensors, perhaps code; nothing of it was run.",
        ) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputRefused(path.name, "is not a table of tensors")
    if len({str(key) for key in state}) < len(state):
        raise InputRefused(path.name, "has two tensors of one name, a number and its digits")
    return {str(key): value.detach() for key, value in state.items()}


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
