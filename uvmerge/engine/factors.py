"""Decompositions kept on disk between runs: one small safetensors file each.

A key names the content of the matrix and the rung of the ladder. The file name adds the versions of
torch and of scipy, and the kind of device, so that a run with kept factors gives the same bytes as one without.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import save

from ..errors import RunFailed
from ..output import lock
from ..spectral import lapack
from ..spectral.gram import Eigenpairs


class FactorFolder:
    """A `spectral.source.Memory` in a folder.

    Args:
        keeps_whole: whether to keep all vectors of a decomposition, so that a later run that asks for
            more of them has no second one to make.

    A file appears by renaming, so that it is never there in part. A damaged or malformed file counts
    as absent. What a killed run on this host had not finished is removed.
    """

    def __init__(self, folder: Path, device: str, keeps_whole: bool = False) -> None:
        self.folder, self.keeps_whole = folder, keeps_whole
        self._made_by = f"torch-{torch.__version__}-lapack-{lapack.version()}-{device}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("*.safetensors.*_*"):
                if lock.is_abandoned(path.name.rpartition(".")[2].partition("_")[0]):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise RunFailed(folder, f"cannot hold factors: {error.strerror}") from error

    def recall(self, key: str, columns: int) -> Eigenpairs | None:
        path = self._path(key)
        try:
            if not path.is_file():  # to open a pipe would wait
                return None
            with safe_open(path, "pt") as file:
                made = file.metadata() or {}
                pairs = Eigenpairs(
                    file.get_tensor("values"),
                    file.get_tensor("vectors"),
                    float.fromhex(made["following"]) if "following" in made else None,
                )
            is_whole = made["key"] == key and made["xxh3_128"] == _digest(pairs)
        except Exception:  # a malformed file may raise anything
            return None
        if not is_whole or pairs.values.dim() != 1 or pairs.vectors.dim() != 2:
            return None
        return pairs if pairs.vectors.shape[1] >= min(columns, len(pairs.values)) else None

    def keep(self, key: str, pairs: Eigenpairs) -> None:
        made = {"key": key, "xxh3_128": _digest(pairs)}
        if pairs.following is not None:
            made["following"] = pairs.following.hex()
        tensors = {"values": pairs.values.cpu(), "vectors": pairs.vectors.cpu().contiguous()}
        path = self._path(key)
        beside = path.with_name(f"{path.name}.{lock.signature()}_{threading.get_ident()}")
        try:
            beside.write_bytes(save(tensors, made))
            os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise RunFailed(
                path,
                f"the factors cannot be kept: {error.strerror}",
                "Make room, or go on without --factors; the same command resumes.",
            ) from error

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}-{self._made_by}.safetensors"


def _digest(pairs: Eigenpairs) -> str:
    """xxh3-128 of eigenpairs, by which a damaged file is recognised."""
    hasher = xxhash.xxh3_128(repr((tuple(pairs.vectors.shape), pairs.following)).encode())
    for tensor in (pairs.values, pairs.vectors):
        hasher.update(tensor.cpu().contiguous().numpy().data)
    return hasher.hexdigest()
