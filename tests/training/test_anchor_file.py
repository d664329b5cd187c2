"""The anchor file as a trainer reads it: whole or refused by name, and hashes that know the base."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
from faults import DOWN, Q
from safetensors.torch import load_file

import uvmerge
from uvmerge.training import anchor_file
from uvmerge.training.anchor_file import AnchorFile, content_hash


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return faults.write(tmp_path / "base", faults.tensors(dtype=torch.bfloat16))


@pytest.fixture
def file(base: Path, tmp_path: Path) -> Path:
    out = tmp_path / "anchor.safetensors"
    uvmerge.anchor_build(base, out, rank=5)
    return out


def changed_metadata(file: Path, change: Any, *, signed: bool = False) -> None:
    """Let `change` work on what the metadata says; `signed`: as if uvmerge had written it."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    fields = json.loads(raw[8 : 8 + length])
    said = json.loads(fields["__metadata__"][anchor_file.KEY])
    change(said)
    if signed:
        del said[anchor_file.OWN_HASH]
        text = json.dumps(said, separators=(",", ":")).encode()
        said[anchor_file.OWN_HASH] = anchor_file.xxhash.xxh3_128_hexdigest(text)
    fields["__metadata__"] = {anchor_file.KEY: json.dumps(said, separators=(",", ":"))}
    text = json.dumps(fields, separators=(",", ":")).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def test_an_anchor_tells_what_it_holds(file: Path, base: Path) -> None:
    anchor = AnchorFile.open(file)
    assert list(anchor.matrices) == [name.format(i) for i in range(3) for name in (Q, DOWN)]
    matrix = anchor.matrices[DOWN.format(1)]
    assert (matrix.shape, matrix.k, matrix.full, matrix.dtype) == ((16, 24), 5, False, "BF16")
    assert matrix.content_hash == content_hash(
        faults.tensors(dtype=torch.bfloat16)[matrix.name], "BF16"
    )
    assert anchor.selection == {"rank": 5} and anchor.dtype == "BF16"
    assert anchor.version == uvmerge.__version__
    assert anchor.made_with["precision"] == "exact"
    assert anchor.size_bytes == file.stat().st_size
    anchor.verify()


def test_factors_are_those_in_the_file_in_the_dtype_that_is_asked_for(file: Path) -> None:
    anchor, stored = AnchorFile.open(file), load_file(file)
    name = DOWN.format(0)
    U, V = anchor.factors(name)
    assert torch.equal(U, stored[f"{name}.U"]) and torch.equal(V, stored[f"{name}.V"])
    assert (U.shape, V.shape, U.dtype) == ((16, 5), (24, 5), torch.bfloat16)
    wide, _ = anchor.factors(name, dtype=torch.float32)
    assert wide.dtype == torch.float32 and torch.equal(wide.bfloat16(), U)


def test_a_matrix_that_is_anchored_as_a_whole_has_no_factors(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole.safetensors"
    uvmerge.anchor_build(base, out, rank=16)
    anchor = AnchorFile.open(out)
    assert all(matrix.full and matrix.k == 16 for matrix in anchor.matrices.values())
    assert load_file(out) == {}
    with pytest.raises(ValueError, match=r"q_proj\.weight is anchored as a whole"):
        anchor.factors(Q.format(0))


def test_a_start_that_was_widened_has_the_hash_of_the_base_and_any_other_has_not() -> None:
    stored = torch.randn(7, 5).bfloat16()
    of_base = content_hash(stored, "BF16")
    assert content_hash(stored.float(), "BF16") == of_base == content_hash(stored.double(), "BF16")
    assert content_hash(torch.nn.Parameter(stored.mT.contiguous().mT), "BF16") == of_base
    nudged = stored.float()
    nudged[3, 2] += 1e-6  # less than bfloat16 can tell
    assert content_hash(nudged, "BF16") != of_base
    assert content_hash(stored.mT, "BF16") != of_base
    assert content_hash(torch.full((2, 2), 1e30), "F16") != content_hash(
        torch.full((2, 2), torch.inf).half(), "F16"
    )


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_refused_by_name(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        uvmerge.InputRefused, match=r"/anchor\.safetensors: .*(short|claims|truncated)"
    ):
        AnchorFile.open(file)
    faults.failed(faults.uvmerge("anchor", "show", file), "anchor.safetensors:", code=3)


def test_a_file_that_is_cut_after_it_was_opened_is_refused_too(file: Path) -> None:
    anchor = AnchorFile.open(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(uvmerge.InputRefused, match=r"factors of model\.layers\.2\.mlp\.down_proj"):
        anchor.factors(DOWN.format(2))


def test_changed_factors_are_refused_when_they_are_read(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    anchor = AnchorFile.open(file)  # costs no read of the factors
    anchor.factors(Q.format(0))
    what = "anchor.safetensors: the factors of model.layers.2.mlp.down_proj.weight are not those"
    with pytest.raises(uvmerge.InputRefused, match=what):
        anchor.factors(DOWN.format(2))
    with pytest.raises(uvmerge.InputRefused, match=what):
        anchor.verify()
    faults.failed(faults.uvmerge("anchor", "show", file), what, "Build it again", code=3)


def test_changed_metadata_is_refused(file: Path) -> None:
    changed_metadata(file, lambda said: said["matrices"][Q.format(0)].update(k=4))
    with pytest.raises(uvmerge.InputRefused, match="its metadata was changed after uvmerge wrote"):
        AnchorFile.open(file)


def test_a_newer_format_says_what_to_update(file: Path) -> None:
    changed_metadata(file, lambda said: said.update(format=2), signed=True)
    with pytest.raises(uvmerge.InputRefused, match="of format 2, this uvmerge reads format 1"):
        AnchorFile.open(file)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda said: said["matrices"][Q.format(0)].update(k=4), "tensors are not those"),
        (lambda said: said["matrices"].pop(Q.format(0)), "tensors are not those"),
        (lambda said: said["matrices"][Q.format(0)].update(k=17), "impossible"),
        (lambda said: said["matrices"][Q.format(0)].update(shape=[3]), "lacks shape"),
        (lambda said: said["matrices"][Q.format(0)].update(full=True), "impossible k"),
        (lambda said: said.update(matrices=[]), "damaged"),
        (lambda said: said.pop("selection"), "damaged"),
        (lambda said: said.update(dtype=["F32"]), "are not those"),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(file: Path, change: Any, what: str) -> None:
    changed_metadata(file, change, signed=True)
    with pytest.raises(uvmerge.InputRefused, match=what):
        AnchorFile.open(file)


def test_another_file_is_no_anchor(base: Path, tmp_path: Path) -> None:
    with pytest.raises(uvmerge.InputRefused, match="is no anchor file of uvmerge"):
        AnchorFile.open(base / "model.safetensors")
    for missing in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(uvmerge.InputRefused, match="is not a file"):
            AnchorFile.open(missing)
