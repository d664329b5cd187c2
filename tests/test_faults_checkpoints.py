"""Damaged, hostile and merely unlucky inputs: what is refused, in which words, and what is not."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import pytest
import torch
import zoo
from faults import DOWN, EMBED, HEAD, Q, at_most, done, failed, refused

from uvmerge.text import inert

NOTHING = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
FOUR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
EVIL = "\x1b]0;owned\x07\x9b31m\u202e\x08"


@contextmanager
def at_most_bytes(count: int) -> Iterator[None]:
    """Let this process take no more memory than that beyond what it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def plant(folder: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """Replace the weights in `folder` by a file with this header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return zoo.write_raw(folder / zoo.SINGLE, raw, data, length=length)


def noted(outcome: faults.Outcome, note: str) -> None:
    assert f"note: {note}" in done(outcome).err.splitlines(), outcome.err


# Files: size and header


def test_truncated_shard_is_refused_with_both_sizes(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    shard = pair[1] / "model-00002-of-00002.safetensors"
    size = shard.stat().st_size
    os.truncate(shard, size - 100)
    refused(
        pair, f"{shard.name}: truncated: {size - 100:,} bytes, its header describes {size:,}",
        "Download or save the file again.",
    )  # fmt: skip


def test_trailing_bytes_are_refused_with_both_sizes(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    file = pair[0] / zoo.SINGLE
    size = file.stat().st_size
    os.truncate(file, size + 5)
    what = f"has trailing bytes: {size + 5:,} bytes, its header describes {size:,}"
    refused(pair, f"{zoo.SINGLE}: {what}")


@pytest.mark.parametrize("role", ["base", "finetuned"])
def test_a_damaged_file_is_named_with_its_folder(role: str, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    os.truncate(tmp_path / role / zoo.SINGLE, 2000)
    refused(pair, f"{role}/{zoo.SINGLE}: truncated: 2,000 bytes")


def test_a_damaged_file_in_the_current_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = faults.pair(tmp_path)
    os.truncate(pair[1] / zoo.SINGLE, 2000)
    monkeypatch.chdir(pair[1])
    outcome = faults.uvmerge("restore", "../base", ".", "../out")
    faults.failed(outcome, f"{zoo.SINGLE}: truncated: 2,000 bytes", code=3)
    assert f"error: /{zoo.SINGLE}" not in outcome.err  # no such file


@pytest.mark.parametrize("size", [0, 7])
def test_a_file_too_short_for_a_header_is_refused(size: int, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    os.truncate(pair[1] / zoo.SINGLE, size)
    refused(pair, f"{size} bytes, too short for a safetensors file")


@pytest.mark.parametrize("claim", [90_000_000, 100_000_001, 2**63, 2**64 - 1])
def test_a_claimed_header_length_is_never_allocated(claim: int, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    plant(pair[1], b"{" + b" " * 91, length=claim)
    tracemalloc.start()
    refused(pair, f"claims a header of {claim:,} bytes, the file has 100 bytes in all")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_header_over_100_mb_is_refused_though_the_file_is_larger(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    with plant(pair[1], b"{}", length=100_000_001).open("r+b") as file:
        file.truncate(10**12)  # sparse
    what = "claims a header of 100,000,001 bytes, the file has 1,000,000,000,000 bytes in all"
    refused(pair, what, "(limit 100,000,000)")


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b"not JSON", "its header is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"\x80{}", "its header is not valid JSON ("),
        (b"[" * 100_000, "its header is nested deeper than 64 levels"),
        (b'{"a":NaN}', "its header is not valid JSON (NaN is no number)"),
        (b"[]", "its header is not a JSON object"),
        (json.dumps({"a": NOTHING}).encode("utf-16-le"), "its header is not valid JSON ("),
        (b'{"a":{},"a":{}}', "its header has the key 'a' twice"),
        (b'{"\\u001b[2J":1,"\\u001b[2J":1}', "its header has the key '\\x1b[2J' twice"),
        (b'{"a":{"dtype":"F32","dtype":"F32"}}', "its header has the key 'dtype' twice"),
        ({"__metadata__": [1]}, "__metadata__ is not a table of strings"),
        ({"__metadata__": []}, "__metadata__ is not a table of strings"),
        ({"__metadata__": 0}, "__metadata__ is not a table of strings"),
        ({"__metadata__": {"format": {"pt": 1}}}, "__metadata__ is not a table of strings"),
        ({"a": 1}, "tensor 'a' lacks dtype, shape or offsets"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "tensor 'a' lacks dtype, shape or offsets"),
        ({"a": NOTHING | {"dtype": "F31"}}, "tensor 'a' has the unknown dtype 'F31'"),
        ({"a": NOTHING | {"dtype": ["F32"]}}, "tensor 'a' has the unknown dtype"),
        ({"a": NOTHING | {"shape": [-1]}}, "tensor 'a' has impossible shape or offsets"),
        ({"a": NOTHING | {"shape": [0.0]}}, "tensor 'a' has impossible shape or offsets"),
        ({"a": NOTHING | {"shape": [False]}}, "tensor 'a' has impossible shape or offsets"),
        ({"a": NOTHING | {"shape": "0"}}, "tensor 'a' has impossible shape or offsets"),
        ({"a": NOTHING | {"data_offsets": [0]}}, "tensor 'a' lacks dtype, shape or offsets"),
        ({"a": NOTHING | {"data_offsets": [4, 0]}}, "tensor 'a' has impossible shape or offsets"),
        (b'{"a\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', "not valid"),
    ],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(
    header: object, sentence: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path)
    plant(pair[1], header)
    refused(pair, f"{zoo.SINGLE}: ", sentence, "Download or save the file again.")


@pytest.mark.parametrize(
    ("header", "data", "sentence"),
    [
        ({"a": FOUR | {"shape": [4, 4]}}, 4,
         "'a' of F32 [4, 4] needs 64 bytes, the header gives it 4"),
        ({"a": FOUR | {"dtype": "BF16"}}, 4,
         "'a' of BF16 [1] needs 2 bytes, the header gives it 4"),
        ({"a": FOUR, "b": FOUR}, 4, "tensor 'b' overlaps the one before (byte "),
        ({"a": FOUR, "b": FOUR | {"data_offsets": [2, 6]}}, 6,
         "tensor 'b' overlaps the one before"),
        ({"a": FOUR, "b": FOUR | {"data_offsets": [8, 12]}}, 12,
         "tensor 'b' leaves a hole before it"),
        ({"a": FOUR | {"data_offsets": [4, 8]}}, 8, "tensor 'a' leaves a hole before it"),
        ({"a": FOUR | {"shape": [2**33, 2**33], "data_offsets": [0, 0]}}, 0,
         "needs 295,147,905,179,352,825,856 bytes, the header gives it 0"),
        ({"a": FOUR | {"shape": [2**62] * 20, "data_offsets": [0, 0]}}, 0, "the header gives it 0"),
        ({"a": FOUR | {"data_offsets": [2**64, 2**64 + 4]}}, 4,
         "leaves a hole before it (byte 18,446"),
    ],
)  # fmt: skip
def test_bytes_that_do_not_fit_the_shapes_are_refused_with_figures(
    header: object, data: int, sentence: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path)
    plant(pair[1], header, bytes(data))
    refused(pair, sentence)


def test_an_error_about_a_long_header_entry_stays_short(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    plant(pair[1], {"a" * 100_000: NOTHING | {"shape": [-1] * 100_000}})
    outcome = faults.restore(*pair)
    faults.failed(outcome, "has impossible shape or offsets", code=3)
    assert len(outcome.err) < 2000


# The index, and the names in it


def test_duplicate_keys_in_the_index_are_refused(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    text = (pair[1] / zoo.INDEX).read_text().replace(f'"{HEAD}"', f'"{EMBED}"')
    (pair[1] / zoo.INDEX).write_text(text)
    refused(pair, f"finetuned/{zoo.INDEX}: it has the key '{EMBED}' twice")


def test_a_tensor_in_two_shards_is_refused_naming_both(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    one, two = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    made = {n: faults.spec(t) for n, t in faults.tensors().items()}
    zoo.write_safetensors(pair[1] / two, made)
    refused(pair, f"finetuned: {EMBED} is both in {one} and in {two}")


@pytest.mark.parametrize(
    "name",
    ["/victim.safetensors", "../victim.safetensors", "a/../../victim.safetensors",
     "a\\b.safetensors",
     "..\\victim.safetensors", "a\0.safetensors", "./model.safetensors", "a//b.safetensors", "",
     "..", "/"],
)  # fmt: skip
def test_a_weight_map_that_leads_out_is_refused_and_touches_nothing(
    name: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path, shards=2)
    (tmp_path / "victim.safetensors").write_bytes((pair[1] / zoo.files(pair[1])[0]).read_bytes())
    if name.startswith("/v"):
        name = str(tmp_path / "victim.safetensors")
    faults.change_index(pair[1], lambda weight_map: weight_map.update({EMBED: name}))
    refused(
        pair, f"finetuned: names the file '{inert(name)}'", "which may lie outside the folder",
        options=("--max-shard-size", "1GB"),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["config.json", "model.bin", "notes.safetensors.txt", ".bashrc"])
def test_a_weight_map_with_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    (pair[1] / name).touch()
    faults.change_index(pair[1], lambda weight_map: weight_map.update({EMBED: name}))
    refused(pair, f"{zoo.INDEX}: names {name!r}, which is not a .safetensors file")


@pytest.mark.parametrize("name", ["x" * 300 + ".safetensors", "\ud800.safetensors"])
def test_a_weight_map_name_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    faults.change_index(pair[1], lambda weight_map: weight_map.update({EMBED: name}))
    refused(pair, "finetuned")


def test_a_shard_that_links_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    shard = zoo.files(pair[1])[0]
    shard.rename(tmp_path / "elsewhere.safetensors")
    shard.symlink_to("../elsewhere.safetensors")
    refused(pair, f"finetuned: '{shard.name}' is a link that leads out of the folder")


def test_a_folder_that_links_out_is_refused(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    (tmp_path / "elsewhere").mkdir()
    shard = zoo.files(pair[1])[0]
    shard.rename(tmp_path / "elsewhere" / shard.name)
    (pair[1] / "sub").symlink_to(tmp_path / "elsewhere")
    name = f"sub/{shard.name}"
    faults.change_index(
        pair[1], lambda weight_map: weight_map.update(
            {n: name for n, f in weight_map.items() if f == shard.name})
    )  # fmt: skip
    refused(pair, f"'{name}' is a link that leads out of the folder")


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    shard = zoo.files(pair[1])[0]
    shard.unlink()
    shard.symlink_to(shard.name)
    refused(pair, "finetuned", shard.name)


def hub_snapshot(folder: Path, repo: Path) -> Path:
    """`folder` as a snapshot in a Hub cache: links into `blobs`."""
    snapshot = repo / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(repo / "blobs" / f"{number:064x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:064x}")
    return snapshot


def test_a_hub_snapshot_with_links_into_its_blobs_is_accepted(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    expected = faults.undisturbed(pair)
    base, finetuned = (hub_snapshot(f, tmp_path / f"models--org--{f.name}") for f in pair[:2])
    done(faults.restore(base, finetuned, pair[2]))
    written = faults.contents(pair[2])
    weights = {n for n in written if n not in ("README.md", "uvmerge.json")}
    assert {n: written[n] for n in weights} == {n: expected[n] for n in weights}
    assert not any(path.is_symlink() for path in pair[2].iterdir())


@pytest.mark.parametrize("target", ["../../../victim", "../../blobs/../../victim", "/etc/passwd"])
def test_a_hub_snapshot_with_a_link_elsewhere_is_refused(target: str, tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path, shards=2)
    (tmp_path / "victim").write_bytes(b"")
    snapshot = hub_snapshot(finetuned, tmp_path / "models--org--name")
    shard = next(snapshot.glob("*.safetensors"))
    shard.unlink()
    shard.symlink_to(target)
    refused((base, snapshot, out), f"'{shard.name}' is a link that leads out of the folder")


def test_blobs_that_are_a_link_elsewhere_are_refused(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path, shards=2)
    snapshot = hub_snapshot(finetuned, tmp_path / "models--org--name")
    (tmp_path / "models--org--name" / "blobs").rename(tmp_path / "blobs")
    (tmp_path / "models--org--name" / "blobs").symlink_to(tmp_path / "blobs")
    refused((base, snapshot, out), "is a link that leads out of the folder")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    (pair[1] / "model-00002-of-00002.safetensors").unlink()
    refused(pair, "finetuned: the shard model-00002-of-00002.safetensors is missing")


def test_an_index_key_without_a_tensor_is_named(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    faults.change_index(pair[1], lambda m: m.update({"ghost.weight": m[EMBED]}))
    refused(pair, "finetuned: the index names 1 tensor: ghost.weight not in the file it gives")


def test_an_index_that_gives_the_wrong_file_is_refused(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    faults.change_index(pair[1], lambda m: m.update({EMBED: m[HEAD], HEAD: m[EMBED]}))
    refused(pair, f"the index names 2 tensors: {EMBED}, {HEAD} not in the file it gives")


def test_a_tensor_without_an_index_key_is_named(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    faults.change_index(pair[1], lambda m: m.pop(EMBED))
    refused(pair, f"finetuned: the index does not name 1 tensor: {EMBED}")


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ("", "it is not valid JSON (Expecting value"),
        ("[]", "it is not a JSON object"),
        ("{}", "has no weight_map from tensor names to file names"),
        ('{"weight_map": []}', "has no weight_map from tensor names to file names"),
        ('{"weight_map": {"a": 1}}', "has no weight_map from tensor names to file names"),
        ('{"weight_map": {}}', zoo.INDEX),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(index: str, sentence: str, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    (pair[1] / zoo.INDEX).write_text(index)
    refused(pair, "finetuned", sentence)


def test_an_index_without_metadata_is_accepted_and_written_with_it(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    weight_map = json.loads((pair[1] / zoo.INDEX).read_text())["weight_map"]
    faults.write_index(pair[1], weight_map)
    done(faults.restore(*pair))
    index = json.loads((pair[2] / zoo.INDEX).read_text())
    assert index["weight_map"] == weight_map
    assert index["metadata"]["total_size"] == sum(map(len, zoo.raw(pair[2]).values()))


def test_a_single_file_beside_an_index_of_other_tensors_is_refused(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    zoo.write_safetensors(pair[1] / zoo.SINGLE, {"a": ("F32", [1], b"abcd")})
    refused(
        pair, f"holds both {zoo.SINGLE} (1 tensors) and {zoo.INDEX} (12 tensors), which differ",
        f"transformers loads {zoo.SINGLE}; vLLM follows the index. Remove the stale one.",
    )  # fmt: skip


def test_a_single_file_beside_an_index_of_the_same_tensors_is_noted(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    made = faults.tuned(faults.tensors())
    zoo.write_safetensors(pair[1] / zoo.SINGLE, {n: faults.spec(t) for n, t in made.items()})
    note = f"{zoo.SINGLE} and {zoo.INDEX} name the same tensors; {zoo.SINGLE} is used"
    noted(faults.restore(*pair), note)
    assert [p.name for p in pair[2].glob("*.safetensors*")] == [zoo.SINGLE]


# What is no checkpoint at all


@pytest.mark.parametrize("reference", ["no/such/folder", "$HOME/model", "a b", "%00"])
def test_what_is_neither_folder_nor_hub_id_is_refused(reference: str, tmp_path: Path) -> None:
    _, finetuned, out = faults.pair(tmp_path)
    faults.failed(
        faults.uvmerge("restore", reference, finetuned, out),
        f"{reference}: is neither a folder nor a Hub id like org/name or org/name@revision",
        code=3,
    )  # fmt: skip
    assert faults.leftovers(out) == []


@pytest.mark.parametrize("reference", ["~nobody-of-that-name/model", "x" * 5000])
def test_a_reference_that_no_system_call_takes_is_refused(reference: str, tmp_path: Path) -> None:
    _, finetuned, out = faults.pair(tmp_path)
    outcome = faults.uvmerge("restore", reference, finetuned, out)
    faults.failed(outcome, "is neither a folder nor a Hub id", code=3)


def test_a_hub_id_that_cannot_be_had_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _, finetuned, out = faults.pair(tmp_path)
    outcome = faults.uvmerge("restore", "nobody/nothing", finetuned, out)
    faults.failed(
        outcome, "nobody/nothing: no folder 'nobody/nothing' here, and from the Hub (https://",
        "not in the local cache, and the Hub cannot be reached", "HF_HUB_OFFLINE", code=3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "holds no weights A model folder has a model.safetensors or a"),
        (["adapter_config.json"],
         "is a PEFT adapter, not a model Merge"),
        (["a.safetensors"],
         "has neither model.safetensors nor an index, only 1 file: a.safetensors"),
    ],
)  # fmt: skip
def test_a_folder_without_weights_says_what_it_is(
    files: list[str], sentence: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / zoo.SINGLE).unlink()
    for name in files:
        (pair[1] / name).write_text("{}")
    refused(pair, f"finetuned: {sentence}")


@pytest.mark.parametrize("name", ["config.json", zoo.SINGLE])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_folder_or_a_pipe_under_the_name_of_a_file_is_refused(
    name: str, kind: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / name).unlink()
    (os.mkfifo if kind == "pipe" else os.mkdir)(pair[1] / name)
    with at_most(5):
        refused(pair, "finetuned", name)


@pytest.mark.parametrize("name", ["config.json", zoo.SINGLE, "tokenizer.json"])
def test_a_file_that_may_not_be_read_is_named(name: str, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / "tokenizer.json").write_text("{}")
    real = os.open

    def deny(path: Any, *arguments: Any, **keywords: Any) -> int:
        if str(path) == str(pair[1] / name):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **keywords)

    def deny_open(path: Any, *arguments: Any, **keywords: Any) -> Any:
        deny(path, os.O_RDONLY) if str(path) == str(pair[1] / name) else None
        return real_open(path, *arguments, **keywords)

    real_open = open
    with (
        mock.patch("os.open", deny),
        mock.patch("builtins.open", deny_open),
        mock.patch("io.open", deny_open),
    ):
        outcome = faults.restore(*pair)
    assert outcome.code in (1, 3), outcome
    assert name in outcome
    assert "ermission denied" in outcome
    assert not pair[2].exists()


# Values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("role", [0, 1])
def test_nan_or_inf_in_a_matrix_to_be_edited_is_refused(
    value: float, role: int, tmp_path: Path
) -> None:
    both = [faults.tensors(), faults.tuned(faults.tensors())]
    for name in (Q.format(1), DOWN.format(2)):
        both[role][name][3, 5] = value
    refused(
        faults.pair_of(tmp_path, *both),
        f"base and fine-tuned: NaN or Inf in 2 tensors: {Q.format(1)}, {DOWN.format(2)}",
        "--nonfinite copy leaves them as fine-tuned",
    )  # fmt: skip


def test_nonfinite_copy_leaves_that_tensor_as_fine_tuned(tmp_path: Path) -> None:
    theirs = faults.tuned(faults.tensors())
    theirs[Q.format(1)][3, 5] = float("nan")
    pair = faults.pair_of(tmp_path, faults.tensors(), theirs)
    noted(
        faults.restore(*pair, "--nonfinite", "copy"),
        f"NaN or Inf, left as fine-tuned: 1 tensor: {Q.format(1)}",
    )
    before, after = zoo.raw(pair[1]), zoo.raw(pair[2])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f.format(i) for f in (Q, DOWN) for i in range(3)} - {Q.format(1)}


def test_nan_in_what_is_only_copied_is_let_through(tmp_path: Path) -> None:
    theirs = faults.tuned(faults.tensors())
    theirs[EMBED][0] = float("nan")
    theirs["model.norm.weight"][0] = float("inf")
    pair = faults.pair_of(tmp_path, faults.tensors(), theirs)
    done(faults.restore(*pair))
    assert zoo.raw(pair[2])[EMBED] == zoo.raw(pair[1])[EMBED]


def test_unrelated_checkpoints_are_refused_with_the_distance(tmp_path: Path) -> None:
    ours, theirs = faults.tensors(hidden=64), faults.tensors(hidden=64)
    make = torch.Generator().manual_seed(1)
    theirs = {n: torch.randn(t.shape, generator=make) for n, t in theirs.items()}
    refused(faults.pair_of(tmp_path, ours, theirs), "look unrelated: relative delta 1.4", "--force")


# Names and shapes


def test_shapes_that_differ_are_listed_with_counts(tmp_path: Path) -> None:
    theirs = faults.tuned(faults.tensors())
    for i in range(3):
        theirs[Q.format(i)] = torch.ones(16, 20)
        theirs[DOWN.format(i)] = torch.ones(16, 20)
    refused(
        faults.pair_of(tmp_path, faults.tensors(), theirs), "shapes differ in 6 selected tensors: ",
        f"{Q.format(0)} ([16, 20] against [16, 16] in the base)",
        f"{DOWN.format(0)} ([16, 20] against [16, 24] in the base)", "… and 2 more", "--exclude",
    )  # fmt: skip


@pytest.fixture
def other_vocabulary(tmp_path: Path) -> faults.Pair:
    wide = faults.tuned(faults.tensors(vocabulary=40))
    return faults.pair_of(tmp_path, faults.tensors(), faults.tuned(faults.tensors()) | {
        EMBED: wide[EMBED], HEAD: wide[HEAD]
    })  # fmt: skip


VOCABULARY_NOTE = (
    f"of another shape in the base, left as fine-tuned: 2 tensors: {EMBED}, {HEAD}"
    " (a changed vocabulary?)"
)


@pytest.mark.parametrize("way", [("--force",), ("--exclude", EMBED, "--exclude", HEAD)])
def test_embeddings_of_another_vocabulary_are_left_only_when_asked_for(
    way: tuple[str, ...], other_vocabulary: faults.Pair
) -> None:
    sentence = (
        "no counterpart of the same shape in the base of 2 selected tensors:"
        f" {EMBED}, {HEAD}, which would stay as fine-tuned beside others that do not"
    )
    faults.failed(faults.uvmerge("interpolate", *other_vocabulary), sentence, "--exclude", code=3)
    noted(faults.uvmerge("interpolate", *other_vocabulary, *way), VOCABULARY_NOTE)
    before, after = zoo.raw(other_vocabulary[1]), zoo.raw(other_vocabulary[2])
    assert {n for n in before if before[n] == after[n]} == {EMBED, HEAD}


def test_embeddings_of_another_vocabulary_are_explained_where_none_are_selected(
    other_vocabulary: faults.Pair,
) -> None:
    noted(faults.restore(*other_vocabulary), VOCABULARY_NOTE)


def test_embeddings_of_another_vocabulary_are_refused_when_asked_for(
    other_vocabulary: faults.Pair,
) -> None:
    refused(
        other_vocabulary, f"shapes differ in 1 selected tensor: {EMBED} ([40, 16] against [32, 16]",
        options=("--modules", "embeddings"),
    )  # fmt: skip


def test_names_only_in_the_base_are_noted(tmp_path: Path) -> None:
    old = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "model.embeddings.position_ids": torch.arange(8),
    }
    ours = faults.tensors()
    pair = faults.pair_of(tmp_path, ours | old, faults.tuned(ours))
    noted(faults.restore(*pair), f"only in base, ignored: 2 tensors: {', '.join(old)}")
    assert zoo.raw(pair[2]).keys() == zoo.raw(pair[1]).keys()


@pytest.mark.parametrize("name", ["value_head.weight", "model.layers.0.self_attn.extra.weight"])
def test_names_only_in_the_fine_tuned_are_copied_and_noted(name: str, tmp_path: Path) -> None:
    theirs = faults.tuned(faults.tensors()) | {name: torch.ones(4, 16)}
    pair = faults.pair_of(tmp_path, faults.tensors(), theirs)
    noted(faults.restore(*pair), f"only in fine-tuned, copied: 1 tensor: {name}")
    assert zoo.raw(pair[2])[name] == zoo.raw(pair[1])[name]


def test_nothing_selected_is_refused(tmp_path: Path) -> None:
    refused(
        faults.pair(tmp_path), "selection: nothing selected: none of 12 tensors passes the filters"
        " (the model has 3 decoder layers)", "uvmerge show", options=("--include", "nothing.*"),
    )  # fmt: skip


def test_nothing_matched_is_refused(tmp_path: Path) -> None:
    base = {f"transformer.h.{i}.attn.c.weight": torch.ones(16, 16) for i in range(3)}
    refused(
        faults.pair_of(tmp_path, base, faults.tuned(faults.tensors())), "base and fine-tuned: ",
        "nothing matched: the base has no 6 selected tensors: model.layers.0.",
        "The base has names like transformer.h.0.attn.c.weight",
    )  # fmt: skip


def test_too_few_matches_are_refused_unless_forced(tmp_path: Path) -> None:
    ours = faults.tensors()
    odd = {n: n if "layers.0." in n else n.replace("_proj", "_odd") for n in ours}
    base = {odd[n]: t for n, t in ours.items()}
    pair = faults.pair_of(tmp_path, base, faults.tuned(ours))
    refused(pair, "too few names match: the base has 2 of the selected tensors and lacks 4 tensors")
    done(faults.restore(*pair, "--force"))


def test_a_layer_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    refused(
        faults.pair(tmp_path), "layers: the model has 3 layers (0 to 2), not layer 7",
        options=("--layers", "0,7"),
    )  # fmt: skip


# Alignment


def test_layers_under_another_prefix_are_aligned_and_said(tmp_path: Path) -> None:
    expected = faults.undisturbed(faults.pair(tmp_path / "same"))
    deep = faults.tensors(prefix="model.language_model.")
    pair = faults.pair_of(tmp_path, deep, faults.tuned(faults.tensors()))
    noted(
        faults.restore(*pair),
        "names aligned: fine-tuned 'model.'* is base 'model.language_model.'*",
    )
    assert (pair[2] / zoo.SINGLE).read_bytes() == expected[zoo.SINGLE]


def test_two_ways_to_align_are_refused_showing_both_sides(tmp_path: Path) -> None:
    base = faults.tensors(prefix="a.") | faults.tensors(prefix="b.")
    refused(
        faults.pair_of(tmp_path, base, faults.tuned(faults.tensors())),
        "their layers correspond in 2 ways ('model.' → 'a.'; 'model.' → 'b.')",
        f"fine-tuned has {Q.format(0)}, base has a.layers.0.self_attn.q_proj.weight",
    )


def test_an_alignment_that_is_not_total_is_refused_showing_both_sides(tmp_path: Path) -> None:
    base = faults.tensors(prefix="a.")
    base["a.layers.1.mlp.down_proj.weight"] = torch.ones(16, 25)
    refused(
        faults.pair_of(tmp_path, base, faults.tuned(faults.tensors())),
        "their layers have different names or shapes: fine-tuned has",
        f"fine-tuned has {Q.format(0)}, base has a.layers.0.self_attn.q_proj.weight",
    )


def test_thousands_of_ways_to_align_are_refused_quickly(tmp_path: Path) -> None:
    base = {f"p{i}.layers.0.a.weight": torch.ones(2, 2) for i in range(3000)}
    theirs = {f"m.layers.{i}.a.weight": torch.ones(2, 2) for i in range(2000)}
    with at_most(5):
        refused(faults.pair_of(tmp_path, base, theirs, config={}), "base and fine-tuned: ")


TEXT_PARTS = [("llava", "llama"), ("gemma3_vision", "gemma3"), ("qwen2_vl", "qwen2"),
              ("qwen3_vl", "qwen3")]  # fmt: skip


@pytest.mark.parametrize(("family", "text"), TEXT_PARTS)
@pytest.mark.parametrize("wrapped", ["finetuned", "base"])
def test_a_multimodal_model_is_aligned_with_its_text_part(
    family: str, text: str, wrapped: str, tmp_path: Path
) -> None:
    whole = zoo.pair(family, tmp_path / "whole")
    alone = zoo.pair(text, tmp_path / "alone")
    both = (alone[0], whole[1]) if wrapped == "finetuned" else (whole[0], alone[1])
    done(faults.restore(*alone, tmp_path / "text"))
    done(faults.restore(*both, tmp_path / "out"))
    before, after = zoo.raw(both[1]), zoo.raw(tmp_path / "out")
    changed = sorted(after[name] for name in after if after[name] != before[name])
    text_before, text_after = zoo.raw(alone[1]), zoo.raw(tmp_path / "text")
    expected = sorted(text_after[n] for n in text_after if text_after[n] != text_before[n])
    assert changed == expected != []


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_fused_on_one_side_give_the_same_bytes(family: str, tmp_path: Path) -> None:
    base, finetuned = zoo.pair(family, tmp_path)
    done(faults.restore(base, finetuned, tmp_path / "apart"))
    fused = [zoo.fuse_experts(f, tmp_path / f"fused-{f.name}") for f in (base, finetuned)]
    noted_one = faults.restore(fused[0], finetuned, tmp_path / "one")
    assert zoo.raw(tmp_path / "one") == zoo.raw(tmp_path / "apart"), done(noted_one)
    done(faults.restore(base, fused[1], tmp_path / "two"))
    expected = zoo.fuse_experts(tmp_path / "apart", tmp_path / "expected")
    assert zoo.raw(tmp_path / "two") == zoo.raw(expected)


# Config against weights


def test_a_head_only_in_the_fine_tuned_is_kept_and_set_beside_the_embeddings(
    tmp_path: Path,
) -> None:
    base = {n: t for n, t in faults.tensors().items() if n != HEAD}
    pair = faults.pair_of(tmp_path, base, faults.tuned(faults.tensors()))
    noted(faults.restore(*pair), f"base ties its head: {EMBED} stands for {HEAD}")
    assert zoo.raw(pair[2])[HEAD] == zoo.raw(pair[1])[HEAD]


def test_a_head_only_in_the_base_is_not_added_and_noted(tmp_path: Path) -> None:
    theirs = {n: t for n, t in faults.tuned(faults.tensors()).items() if n != HEAD}
    pair = faults.pair_of(tmp_path, faults.tensors(), theirs)
    noted(faults.restore(*pair), f"only in base, ignored: 1 tensor: {HEAD}")
    assert zoo.raw(pair[2]).keys() == theirs.keys()


@pytest.mark.parametrize("layers", [7, 2])
def test_a_config_with_another_number_of_layers_is_noted(layers: int, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, config=faults.CONFIG | {"num_hidden_layers": layers})
    noted(
        faults.restore(*pair), f"the config says {layers} layers, the weights have 3 (model.layers)"
    )


def test_a_config_that_ties_a_head_that_is_stored_is_noted(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, config=faults.CONFIG | {"tie_word_embeddings": True})
    outcome = done(faults.restore(*pair))
    notes = [line for line in outcome.err.splitlines() if line.startswith("note: ")]
    assert any("tie" in note and HEAD in note for note in notes), notes


@pytest.mark.parametrize("depth", ["3", -3, 0, None, 3.0, [3], {}, 10**9, 10**18])
def test_a_strange_number_of_layers_in_the_config_does_no_harm(depth: Any, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, config=faults.CONFIG | {"num_hidden_layers": depth})
    with at_most(10), at_most_bytes(10**9):
        done(faults.restore(*pair))
    before, after = zoo.raw(pair[1]), zoo.raw(pair[2])
    assert sum(before[name] != after[name] for name in before) == 6


@pytest.mark.parametrize("part", [[1], "text", 7, None, True])
def test_a_strange_text_config_does_no_harm(part: Any, tmp_path: Path) -> None:
    done(faults.restore(*faults.pair(tmp_path, config=faults.CONFIG | {"text_config": part})))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("[]", "it is not a JSON object"),
        ("", "it is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"a": 1, "a": 2}', "it has the key 'a' twice"),
        ('{"a": ' + "1" * 5000 + "}", "it is not valid JSON ("),
        ("[" * 100_000, "it is nested deeper than 64 levels"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(
    config: str, sentence: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / "config.json").write_text(config)
    refused(pair, f"finetuned/config.json: {sentence}")


def test_a_checkpoint_without_a_config_is_edited(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / "config.json").unlink()
    assert "plan: 6 matrices edited" in done(faults.restore(*pair))
    assert not (pair[2] / "config.json").exists()


# Quantised weights


def packed(dtype: str, shape: list[int], bits: int = 8) -> zoo.Spec:
    count = bits // 8
    for length in shape:
        count *= length
    return dtype, shape, bytes(count)


LINEAR = "model.layers.0.self_attn.q_proj"
QUANTISED: dict[str, tuple[dict[str, zoo.Spec], str, str]] = {
    "fp8": (
        {f"{LINEAR}.weight": packed("F8_E4M3", [16, 16]),
         f"{LINEAR}.weight_scale_inv": packed("F32", [1, 1], 32)},
        f"1 selected tensor: {LINEAR}.weight",
        "FineGrainedFP8Config(dequantize=True), then save_pretrained(new_folder)",
    ),
    "bitsandbytes": (
        {f"{LINEAR}.weight": packed("U8", [128, 1]),
         f"{LINEAR}.weight.absmax": packed("F32", [4], 32),
         f"{LINEAR}.weight.quant_state.bitsandbytes__nf4": packed("U8", [40])},
        f"1 selected tensor: {LINEAR}.weight",
        "model.dequantize(), then save_pretrained(new_folder)",
    ),
    "gptq": (
        {f"{LINEAR}.qweight": packed("I32", [2, 16], 32),
         f"{LINEAR}.qzeros": packed("I32", [1, 2], 32),
         f"{LINEAR}.scales": packed("F16", [1, 16], 16),
         f"{LINEAR}.g_idx": packed("I32", [16], 32)},
        f"1 selected tensor: {LINEAR}.qweight",
        "the tool that quantised it, or take the original weights",
    ),
    "mxfp4": (
        {"model.layers.0.mlp.experts.gate_up_proj_blocks": packed("U8", [2, 16, 1, 16]),
         "model.layers.0.mlp.experts.gate_up_proj_scales": packed("U8", [2, 16, 1])},
        "1 selected tensor: model.layers.0.mlp.experts.gate_up_proj_blocks",
        "Mxfp4Config(dequantize=True), then save_pretrained(new_folder)",
    ),
    "compressed-tensors": (
        {f"{LINEAR}.weight_packed": packed("U8", [16, 8]),
         f"{LINEAR}.weight_scale": packed("F8_E4M3", [16, 1]),
         f"{LINEAR}.weight_global_scale": packed("F32", [1], 32)},
        f"1 selected tensor: {LINEAR}.weight_packed",
        "the tool that quantised it, or take the original weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", QUANTISED)
@pytest.mark.parametrize("said", [True, False])
def test_quantised_weights_are_refused_with_how_to_dequantise(
    method: str, said: bool, tmp_path: Path
) -> None:
    extra, names, how = QUANTISED[method]
    theirs = faults.tuned(faults.tensors())
    specs = {n: faults.spec(t) for n, t in theirs.items() if not n.startswith(LINEAR)} | extra
    pair = faults.pair_of(tmp_path, faults.tensors(), specs)
    if not said:
        refused(pair, "finetuned (finetuned): is quantised (method unknown) in", names)
        return
    config = faults.CONFIG | {"quantization_config": {"quant_method": method}}
    (pair[1] / "config.json").write_text(json.dumps(config))
    refused(pair, f"finetuned (finetuned): is quantised (method {method}) in {names}", how)


def test_a_quantisation_that_the_config_alone_tells_of_is_a_note(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    config = faults.CONFIG | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (pair[0] / "config.json").write_text(json.dumps(config))
    done(faults.restore(*pair), "note: config.json of base has a quantization_config (awq), its")


# Pickles


class Malice:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def pickle_weights(folder: Path, content: object, **options: Any) -> Path:
    (folder / zoo.SINGLE).unlink(missing_ok=True)
    torch.save(content, folder / "pytorch_model.bin", **options)
    return folder / "pytorch_model.bin"


def test_pickles_are_refused_with_how_to_convert(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    pickle_weights(pair[1], faults.tuned(faults.tensors()))
    refused(
        pair, "finetuned: holds its weights as pickles (1 file: pytorch_model.bin)",
        "AutoModel.from_pretrained(folder).save_pretrained(new_folder)", "--allow-pickle",
    )  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_allowed_pickles_give_the_same_weights(zipped: bool, nested: bool, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    done(faults.restore(*pair[:2], tmp_path / "expected"))
    for folder, made in zip(pair, (faults.tensors(), faults.tuned(faults.tensors()))):
        content = {"state_dict": made} if nested else made
        pickle_weights(folder, content, _use_new_zipfile_serialization=zipped)
    done(faults.restore(*pair, "--allow-pickle"))
    assert zoo.raw(pair[2]) == zoo.raw(tmp_path / "expected")
    assert list(pair[2].glob("*.bin")) == []


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_has_no_effect(zipped: bool, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    content = faults.tensors() | {"lm_head.bias": Malice(tmp_path / "owned")}
    file = pickle_weights(pair[1], content, _use_new_zipfile_serialization=zipped)
    refused(pair, "holds its weights as pickles")
    refused(
        pair, "pytorch_model.bin: cannot be loaded as plain tensors (weights_only=True)",
        "nothing of it was run", options=("--allow-pickle",),
    )  # fmt: skip
    assert not (tmp_path / "owned").exists()
    with pytest.raises(FileExistsError):  # it would have worked
        (tmp_path / "owned").mkdir()
        torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" + bytes(50), b"\x80\x02.", b"\x80\x02}q\x00X", b"cos\nsystem\n.",
                b"\x80\x02K\x01.", b"\x80\x02h\x05.", b"\x80\x02(t\x81.", b"\x00" * 64]
)  # fmt: skip
def test_a_pickle_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    pickle_weights(pair[1], {}).write_bytes(content)
    refused(pair, "pytorch_model.bin: ", options=("--allow-pickle",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.ones(2)], "is not a table of tensors"),
        ({"a": 1}, "is not a table of tensors"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a has the dtype torch.complex64"),
        ({"a": torch.eye(3).to_sparse()}, "pytorch_model.bin: a "),
        ({"a": torch.ones(2, device="meta")}, "pytorch_model.bin: a "),
    ],
)
def test_a_pickle_of_something_else_is_refused(
    content: object, sentence: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path)
    pickle_weights(pair[1], content)
    refused(pair, sentence, options=("--allow-pickle",))


# Side files, and code in a checkpoint


def test_python_of_a_checkpoint_is_copied_and_never_run(tmp_path: Path) -> None:
    config = faults.CONFIG | {"auto_map": {"AutoModel": "modeling_evil.Model"}}
    pair = faults.pair(tmp_path, config=config)
    for name in ("modeling_evil.py", "setup.py", "conftest.py", "sitecustomize.py", "torch.py"):
        (pair[1] / name).write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    noted(
        faults.restore(*pair),
        "brings Python files (auto_map): they are copied and never run here",
    )
    assert not (tmp_path / "owned").exists()
    assert "modeling_evil" not in sys.modules
    written = faults.contents(pair[2])
    assert all(written[p.name] == p.read_bytes() for p in pair[1].glob("*.py"))


@pytest.mark.parametrize("target", ["/etc/passwd", "../victim.json", "/nowhere/at-all.json"])
def test_a_side_file_that_links_out_is_refused_before_anything_is_written(
    target: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path)
    (tmp_path / "victim.json").write_text("secret")
    (pair[1] / "tokenizer.json").symlink_to(target)
    refused(pair, "finetuned: 'tokenizer.json' is a link that leads out of the folder")


@pytest.mark.parametrize("target", ["tokenizer.json", "not-there.json"])
def test_a_side_file_that_links_to_nothing_is_refused(target: str, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / "tokenizer.json").symlink_to(target)
    refused(pair, "finetuned", "tokenizer.json")


def test_a_side_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / os.fsdecode(b"\xff.json")).write_text("{}")
    refused(pair, "finetuned", ".json")


def test_a_pipe_among_the_side_files_does_not_block(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    os.mkfifo(pair[1] / "tokenizer.json")
    with at_most(10):
        done(faults.restore(*pair))
    assert not (pair[2] / "tokenizer.json").exists()


@pytest.mark.parametrize(
    "card",
    ["---\ndate: 2024-13-45\n---\n",
     "---\na: " + "[" * 60_000 + "\n---\n", "---\na: !!int ''\n---\n",
     "---\na: !!python/name:os.system\n---\n", "---\n\x00\n---\n", "---\nlicense: {a: *b}\n---\n",
     "---\n? [a]\n: {[b]: c}\n---\n", "---\nlicense: !!bool x\n---\n",
     "---\na: !!timestamp x\n---\n"],
)  # fmt: skip
def test_a_strange_model_card_does_not_stop_a_run(card: str, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / "README.md").write_text(card)
    done(faults.restore(*pair))


def test_the_licence_of_the_card_is_kept(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / "README.md").write_text("---\nlicense: apache-2.0\n---\n# x\n")
    done(faults.restore(*pair))
    assert "\nlicense: apache-2.0\n" in (pair[2] / "README.md").read_text()


# Size


def sparse_pair(folder: Path, tensors: dict[str, list[int]], config: Any) -> faults.Pair:
    """Checkpoints of zeros in BF16 that take no room on disk."""
    fields, at = {}, 0
    for name, shape in tensors.items():
        size = 2
        for length in shape:
            size *= length
        fields[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(fields).encode()
    for role in ("base", "finetuned"):
        file = zoo.write_raw(folder / role / zoo.SINGLE, raw, b"")
        os.truncate(file, 8 + len(raw) + at)
        (folder / role / "config.json").write_text(json.dumps(config))
    return folder / "base", folder / "finetuned", folder / "out"


def test_a_file_of_50_gb_is_planned_in_little_memory(tmp_path: Path) -> None:
    shapes = {EMBED: [25_000_000_000 // 16, 16]}
    shapes |= {n: list(t.shape) for n, t in faults.tensors().items() if n != EMBED}
    pair = sparse_pair(tmp_path, shapes, faults.CONFIG)
    tracemalloc.start()
    outcome = done(faults.restore(*pair, "--dry-run", "--json"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    plan = json.loads(outcome.out)
    assert plan["bytes_out"] == (pair[1] / zoo.SINGLE).stat().st_size > 50_000_000_000
    assert plan["counts"] == {"edited": 6, "reset": 0, "copied": 6}
    assert peak < 20_000_000
    assert faults.leftovers(pair[2]) == []


def test_a_file_of_50_gb_is_refused_where_the_disk_is_smaller(tmp_path: Path) -> None:
    shapes = {EMBED: [25_000_000_000 // 16, 16]}
    shapes |= {n: list(t.shape) for n, t in faults.tensors().items() if n != EMBED}
    pair = sparse_pair(tmp_path, shapes, faults.CONFIG)
    wanted = sum((pair[1] / name).stat().st_size for name in (zoo.SINGLE, "config.json"))
    with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=10**9)):
        refused(
            pair, f"{tmp_path}: the output needs 50 GB ({wanted:,} bytes), the disk is"
            f" {wanted - 10**9:,} bytes short", "Make room, or choose another disk.",
        )  # fmt: skip


@pytest.mark.parametrize(
    "command", [("restore", "--top", "0.1"), ("diff",), ("sweep", "restore", "--top", "0.1,0.2")]
)
def test_a_matrix_of_60_gb_is_refused_in_words_before_it_is_read(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    shapes = {Q.format(0): [200_000, 150_000]}
    shapes |= {n: list(t.shape) for n, t in faults.tensors().items() if n not in shapes}
    pair = sparse_pair(tmp_path, shapes, faults.CONFIG)
    places = pair[:2] if command[0] == "diff" else pair
    before = faults.tree(tmp_path)
    with (
        mock.patch("shutil.disk_usage", return_value=mock.Mock(free=10**12)),
        mock.patch("uvmerge.engine.crew.available_memory", return_value=64 * 10**9),
        mock.patch("uvmerge.engine.reading.Reader.load", side_effect=AssertionError),
        at_most(20),
    ):
        outcome = faults.uvmerge(command[0], *command[1:], *places)
    failed(outcome, f"{Q.format(0)}: needs about ", "TB of memory, 64 GB are available", code=3)
    assert "--exclude" in outcome and "--memory" in outcome
    assert faults.tree(tmp_path) == before


def test_an_edit_in_small_pieces_needs_little_memory(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    with mock.patch("uvmerge.engine.crew.available_memory", return_value=100):
        done(faults.uvmerge("interpolate", *pair))
        failed(faults.restore(*pair, "--overwrite"), "B of memory, 100 B are available", code=3)
        done(faults.restore(*pair, "--overwrite", "--memory", "1MB"))


def test_bytes_beyond_4_gb_are_read_at_their_place(tmp_path: Path) -> None:
    from uvmerge import Checkpoint

    shapes = {EMBED: [2**32, 4], Q.format(0): [16, 16]}
    _, finetuned, _ = sparse_pair(tmp_path, shapes, faults.CONFIG)
    with (finetuned / zoo.SINGLE).open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(bytes(range(256)) * 2)
    with Checkpoint.open(finetuned) as checkpoint:
        tensor = checkpoint.tensors[Q.format(0)]
        assert tensor.offset > 2**35
        read = checkpoint.read(tensor.file, tensor.offset, tensor.size_bytes)
    assert read == bytes(range(256)) * 2


def test_100_000_tensors_are_planned_in_seconds(tmp_path: Path) -> None:
    layers = 12_500
    shapes = {
        f"model.layers.{i}.{part}.weight": [8, 16]
        for i in range(layers)
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                     "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.extra_proj")
    }  # fmt: skip
    pair = sparse_pair(tmp_path, shapes, faults.CONFIG | {"num_hidden_layers": layers})
    started = time.process_time()
    outcome = done(faults.restore(*pair, "--layers", "0-9", "--dry-run", "--json"))
    assert json.loads(outcome.out)["counts"] == {"edited": 80, "reset": 0, "copied": 99_920}
    assert time.process_time() - started < 20


def test_more_shards_than_open_files_are_allowed(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=12)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 24, hard))
    try:
        done(faults.restore(*pair))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Kinds of tensors


@pytest.mark.parametrize("prefix", ["model.", "model.language_model."])
def test_a_tensor_saved_empty_under_zero_3_is_refused(prefix: str, tmp_path: Path) -> None:
    theirs = faults.tuned(faults.tensors())
    theirs[DOWN.format(1)] = theirs[Q.format(2)] = torch.zeros(0)
    refused(
        faults.pair_of(tmp_path, faults.tensors(prefix=prefix), theirs),
        f"finetuned (finetuned): 2 tensors: {DOWN.format(1)}, {Q.format(2)} hold no data: saved"
        " under DeepSpeed ZeRO-3 without gathering the parameters", "zero_to_fp32.py",
    )  # fmt: skip


def test_a_tensor_that_is_empty_on_both_sides_is_copied(tmp_path: Path) -> None:
    ours = {"a.empty": torch.zeros(0, 4)} | faults.tensors() | {"z.empty": torch.zeros(3, 0)}
    pair = faults.pair_of(tmp_path, ours)
    done(faults.restore(*pair))
    assert zoo.raw(pair[2])["a.empty"] == zoo.raw(pair[2])["z.empty"] == b""
    assert zoo.header(pair[2] / zoo.SINGLE)[0] == zoo.header(pair[1] / zoo.SINGLE)[0]


def test_an_empty_tensor_before_an_edited_one_is_no_piece_of_its_own(tmp_path: Path) -> None:
    """Both start at one offset: the journal must not take one for the other."""
    from uvmerge import Checkpoint, Recipe
    from uvmerge.engine.local import jobs
    from uvmerge.plan import planner as plan

    made = {
        DOWN.format(0): torch.ones(8, 8),
        "b.empty": torch.zeros(0),
        DOWN.format(1): torch.ones(8, 8),
    }
    made = {name: tensor.contiguous() for name, tensor in made.items()}
    base, finetuned, _ = faults.pair_of(tmp_path, made, config={})
    recipe = Recipe.parse("{uvmerge: 1, steps: [{restore: {top: 0.25}}]}")
    with Checkpoint.open(base) as one, Checkpoint.open(finetuned) as two:
        found = jobs([plan.build(recipe, {"base": one, "finetuned": two})])
    assert sum(job.size_bytes for job in found) == 2 * 8 * 8 * 4
    assert len({(job.steps[0].file, job.offset) for job in found}) == len(found)


def test_tensors_that_are_no_float_matrices_are_copied_as_bytes_and_listed(tmp_path: Path) -> None:
    odd = {
        "a.scalar": torch.tensor(1.5), "b.vector": torch.randn(5),
        "c.conv": torch.randn(2, 3, 4, 5),
        "model.layers.0.mlp.int.weight": torch.arange(16).reshape(4, 4),
        "model.layers.1.mlp.mask.weight": torch.ones(4, 4, dtype=torch.bool),
        "model.layers.2.mlp.byte.weight": torch.ones(4, 4, dtype=torch.uint8),
    }  # fmt: skip
    pair = faults.pair_of(tmp_path, faults.tensors() | odd)
    outcome = faults.restore(*pair, "--modules", "all")
    listed = ", ".join(name for name in odd if ".mlp." in name)
    noted(outcome, f"not floating point, copied: 3 tensors: {listed}")
    before, after = zoo.raw(pair[1]), zoo.raw(pair[2])
    assert {n: before[n] for n in odd} == {n: after[n] for n in odd}
    assert "plan: 8 matrices edited" in outcome


@pytest.mark.parametrize(
    "name", ["", "a" * 100_000, "a\nb", "..", "/etc/passwd", "a\0b", "\U0001f600"]
)
def test_a_tensor_may_have_any_name(name: str, tmp_path: Path) -> None:
    pair = faults.pair_of(tmp_path, faults.tensors() | {name: torch.ones(3)})
    done(faults.uvmerge("interpolate", *pair))
    assert zoo.raw(pair[2]).keys() == zoo.raw(pair[1]).keys()
    assert zoo.raw(pair[2])[name] != zoo.raw(pair[1])[name]


def test_a_tensor_called_metadata_is_refused(tmp_path: Path) -> None:
    pair = faults.pair_of(tmp_path, faults.tensors() | {"__metadata__": torch.ones(3)})
    refused(pair, zoo.SINGLE)


@pytest.mark.parametrize("digits", [10, 400, 5000])
def test_a_layer_number_of_many_digits_does_no_harm(digits: int, tmp_path: Path) -> None:
    name = f"model.layers.{'9' * digits}.mlp.down_proj.weight"
    pair = faults.pair_of(tmp_path, faults.tensors() | {name: torch.ones(4, 4)}, config={})
    with at_most(5):
        done(faults.uvmerge("reset-layers", *pair, "--layers", "0"))
    before, after = zoo.raw(pair[1]), zoo.raw(pair[2])
    assert {n for n in before if before[n] != after[n]} == {n for n in before if "layers.0." in n}


@pytest.mark.parametrize(
    ("ours", "theirs"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32),
                         (torch.float64, torch.float16)]
)  # fmt: skip
def test_different_dtypes_are_stored_in_the_fine_tuned_one(
    ours: torch.dtype, theirs: torch.dtype, tmp_path: Path
) -> None:
    tuned = {n: t.to(theirs) for n, t in faults.tuned(faults.tensors()).items()}
    pair = faults.pair_of(tmp_path, faults.tensors(dtype=ours), tuned)
    done(faults.restore(*pair))
    assert zoo.header(pair[2] / zoo.SINGLE)[0] == zoo.header(pair[1] / zoo.SINGLE)[0]
    before, after = zoo.raw(pair[1]), zoo.raw(pair[2])
    assert sum(before[name] != after[name] for name in before) == 6


def test_an_edit_that_overflows_float16_stops_the_run(tmp_path: Path) -> None:
    ours = faults.tensors()
    theirs = {n: t.to(torch.float16) for n, t in faults.tuned(ours).items()}
    ours[Q.format(1)] *= 1e6
    pair = faults.pair_of(tmp_path, ours, theirs)
    faults.failed(
        faults.restore(*pair, "--values", "base"), f"{Q.format(1)}: the result overflows F16",
        "Store it wider: --dtype bfloat16 or --dtype float32.", code=1,
    )  # fmt: skip
    assert not pair[2].exists()


def test_a_conversion_that_overflows_float16_stops_the_run(tmp_path: Path) -> None:
    ours = faults.tensors()
    ours[EMBED][0, 0] = 1e6
    pair = faults.pair_of(tmp_path, ours)
    faults.failed(
        faults.restore(*pair, "--dtype", "float16"), f"{EMBED}: its values overflow F16", code=1
    )
    assert not pair[2].exists()


# What reaches the terminal


@pytest.fixture
def evil(tmp_path: Path) -> faults.Pair:
    """A pair full of terminal escapes: in a prefix, a config value, side files."""
    config = faults.CONFIG | {"num_hidden_layers": 9, "model_type": EVIL}
    return faults.pair_of(
        tmp_path, faults.tensors(prefix=f"mod{EVIL}el.") | {EVIL: torch.ones(3)}, config=config
    )


def is_inert(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize(
    "options", [["-v"], ["--dry-run"], ["--json"], ["--dry-run", "--json"], ["--include", "x"]]
)
def test_escapes_in_tensor_names_are_inert_in_a_run(options: list[str], evil: faults.Pair) -> None:
    outcome = faults.restore(*evil, *options)
    assert outcome.out + outcome.err != ""
    assert is_inert(outcome.out), ascii(outcome.out)
    assert is_inert(outcome.err), ascii(outcome.err)


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("command", ["show", "check"])
def test_escapes_in_tensor_names_are_inert_in_what_is_shown(
    command: str, options: list[str], evil: faults.Pair
) -> None:
    config = faults.CONFIG | {"num_hidden_layers": 9, "quantization_config": {"quant_method": EVIL}}
    (evil[1] / "config.json").write_text(json.dumps(config))
    outcome = faults.uvmerge(command, evil[1], *options)
    assert outcome.out != ""
    assert is_inert(outcome.out), ascii(outcome.out)
    assert is_inert(outcome.err), ascii(outcome.err)


@pytest.mark.parametrize(
    "plant_it",
    [
        lambda folder: plant(folder, {EVIL: NOTHING | {"dtype": EVIL}}),
        lambda folder: plant(folder, {EVIL: FOUR}),
        lambda folder: plant(folder, {EVIL: FOUR | {"shape": [EVIL]}}),
        lambda folder: plant(folder, {EVIL: 1}),
        lambda folder: faults.write_index(folder, {EVIL: EVIL}),
        lambda folder: faults.write_index(folder, {EVIL: zoo.SINGLE}),
        lambda folder: faults.write(folder, {EVIL: torch.ones(2, dtype=torch.uint8)},
                                    config={"quantization_config": {"quant_method": EVIL}}),
        lambda folder: (folder / f"tokenizer{EVIL}.json").symlink_to("/etc/passwd"),
    ],
)  # fmt: skip
def test_escapes_are_inert_in_refusals(plant_it: Callable[[Path], object], tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    plant_it(pair[1])
    outcome = faults.restore(*pair)
    faults.failed(outcome, code=3)
    assert is_inert(outcome.err), ascii(outcome.err)


def test_escapes_are_inert_in_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVMERGE_DEBUG", "1")
    pair = faults.pair(tmp_path)
    faults.write_index(pair[1], {EVIL: zoo.SINGLE})
    outcome = faults.restore(*pair)
    assert "Traceback" in outcome.err
    assert is_inert(outcome.err), ascii(outcome.err)


def test_a_terminal_without_unicode_does_not_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = faults.tensors() | {"model.layers.0.mlp.ünïcödé 😀.weight": torch.randn(16, 16)}
    base, finetuned, _ = faults.pair_of(tmp_path, made)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for options in (["--dry-run"], ["--json"], ["-v", "--overwrite"]):
        command = [sys.executable, "-m", "uvmerge", "reset-layers", base, finetuned]
        result = subprocess.run(
            [*command, tmp_path / "öut", *options], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "manifest",
    ["[]", "{}", '{"files": []}', '{"files": {"a": 1}}', "not JSON", '{"files": {}, "edited": 7}',
     '{"files": {"config.json": {}}, "edited": {}, "reset": [], "recipe": {}}',
     '{"files": {"../../../../etc/passwd": {"bytes": 1, "xxh3_128": ""}}, "edited": {}}'],
)  # fmt: skip
def test_check_of_a_folder_with_a_strange_manifest_finds_problems(
    manifest: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path)
    done(faults.restore(*pair))
    (pair[2] / "uvmerge.json").write_text(manifest)
    for options in ([], ["--against", pair[1]]):
        outcome = faults.uvmerge("check", pair[2], *options)
        faults.failed(outcome, code=4)


def test_a_name_without_an_encoding_does_not_break_the_run_late(tmp_path: Path) -> None:
    """Half a surrogate pair cannot be written to any file: refused before anything is computed."""
    pair = faults.pair(tmp_path)
    for folder in pair[:2]:
        header, data = zoo.header(folder / zoo.SINGLE)
        header["model.layers.0.\ud800.weight"] = header.pop(Q.format(0))
        plant(folder, header, data)
    refused(pair, zoo.SINGLE)


def test_a_quantised_text_part_is_refused_where_its_weights_are_packed(tmp_path: Path) -> None:
    config = faults.CONFIG | {"text_config": {"quantization_config": {"quant_method": "awq"}}}
    pair = faults.pair(tmp_path, config=config)
    done(faults.restore(*pair), "has a quantization_config (awq), its weights are plain")
    theirs = faults.tuned(faults.tensors())
    specs = {n: faults.spec(t) for n, t in theirs.items() if not n.startswith(LINEAR)}
    specs[f"{LINEAR}.qweight"] = packed("I32", [2, 16], 32)
    refused(
        faults.pair_of(tmp_path / "packed", faults.tensors(), specs, config=config),
        "is quantised (method awq)",
    )
