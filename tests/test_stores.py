"""Object stores, as far as no server is needed: a store in memory, refusals, and packages that miss."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
import zoo
from command import uv

import uvmerge
from uvmerge.output.places import is_store
from uvmerge.stores.store import Store

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store in memory that holds base and finetuned."""
    from fsspec.implementations.memory import MemoryFileSystem
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.chdir(tmp_path)
    MemoryFileSystem.store.clear()
    memory = MemoryFileSystem()
    for folder in faults.pair(tmp_path, layers=4, hidden=32)[:2]:
        for path in folder.iterdir():
            memory.pipe_file(f"/bucket/{folder.name}/{path.name}", path.read_bytes())
    yield "memory://bucket"
    MemoryFileSystem.store.clear()


def held(prefix: str) -> dict[str, bytes]:
    from fsspec.implementations.memory import MemoryFileSystem

    memory = MemoryFileSystem()
    return {path.rpartition("/")[2]: memory.cat_file(path) for path in memory.find(prefix)}


def test_from_and_to_a_store_gives_the_bytes_of_a_run_on_disk(bucket: str, tmp_path: Path) -> None:
    out = f"{bucket}/repaired"
    done = uvmerge.restore(f"{bucket}/base", f"{bucket}/finetuned", out, top=0.2, quiet=True)
    local = tmp_path / "there" / "repaired"
    uvmerge.restore(tmp_path / "base", tmp_path / "finetuned", local, top=0.2)
    assert done.out == out and done.as_data()["out"] == out
    assert [each.words[1:] for each in done.next[:2]] == [
        ("check", out, "--against", f"{bucket}/finetuned"),
        ("diff", f"{bucket}/finetuned", out),
    ]
    assert held("/bucket/repaired") == {path.name: path.read_bytes() for path in local.iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "finetuned", "hf", "there"]
    with pytest.raises(uvmerge.InputRefused, match="is not empty"):
        uvmerge.restore(tmp_path / "base", tmp_path / "finetuned", out, top=0.2, quiet=True)


def test_where_the_output_is_written_first_is_said(bucket: str, capsys: Capsys) -> None:
    words = ("restore", f"{bucket}/base", f"{bucket}/finetuned", f"{bucket}/repaired")
    done = uv(capsys, *words, "--top", "0.2")
    assert done.code == 0, done.err
    assert "/repaired first, then sent to memory://bucket/repaired" in done.err
    assert done.out.strip().endswith("memory://bucket/repaired")


def test_an_out_that_overlaps_an_input_is_refused(bucket: str) -> None:
    for out in (f"{bucket}/base", f"{bucket}/base/out", bucket):
        with pytest.raises(uvmerge.UsageError, match="overlaps an input"):
            uvmerge.restore(f"{bucket}/base", f"{bucket}/finetuned", out, overwrite=True)


def test_commands_that_write_to_this_disk_alone_say_so(bucket: str, capsys: Capsys) -> None:
    pair = (f"{bucket}/base", f"{bucket}/finetuned")
    done = uv(capsys, "sweep", "restore", *pair, f"{bucket}/out", "--top", "0.1,0.2")
    assert done.code == 2 and "to which this command does not write" in done.err
    for option in ("--report", "--plan"):
        done = uv(capsys, "restore", *pair, f"{bucket}/out", "--top", "0.2", option, "here")
        assert done.code == 2 and f"{option}: needs an OUT on this disk" in done.err
    assert not Path("here").exists()
    done = uv(capsys, "check", pair[0], "--load")
    assert done.code == 2 and "--load: loads no model from an object store" in done.err


@pytest.fixture
def repaired(bucket: str) -> str:
    """An output in the store."""
    pair = (f"{bucket}/base", f"{bucket}/finetuned")
    uvmerge.restore(*pair, f"{bucket}/repaired", top=0.2, max_shard_size="30KB", quiet=True)
    return f"{bucket}/repaired"


def test_check_reads_a_store(repaired: str, bucket: str, tmp_path: Path, capsys: Capsys) -> None:
    found = uvmerge.check(repaired, against=f"{bucket}/finetuned", sha256=True)
    local = tmp_path / "repaired"
    uvmerge.restore(
        tmp_path / "base", tmp_path / "finetuned", local, top=0.2, max_shard_size="30KB"
    )
    assert found == uvmerge.check(local, against=tmp_path / "finetuned", sha256=True)
    assert "README.md" in found["sha256"] and found["changed"] > 0
    done = uv(capsys, "check", repaired)
    assert done.code == 0 and "files as written" in done.err
    done = uv(capsys, "check", f"{bucket}/nothing")
    assert done.code == 3 and "Check the bucket and prefix" in done.err


def test_check_finds_what_is_wrong_in_a_store(repaired: str, capsys: Capsys) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    memory, shards = MemoryFileSystem(), sorted(n for n in held("/bucket/repaired") if "-of-" in n)
    place = f"/bucket/repaired/{shards[0]}"
    content = memory.cat_file(place)
    memory.pipe_file(place, content[:-1] + bytes([content[-1] ^ 1]))
    memory.rm_file("/bucket/repaired/README.md")
    memory.pipe_file("/bucket/repaired/other.safetensors", content)
    done = uv(capsys, "check", repaired)
    assert done.code == 4 and done.err.count("\n") < 12
    for said in (
        f"{repaired}: ",
        f"{shards[0]} has other content than was written",
        "README.md is missing",
        "other.safetensors",
    ):
        assert said in done.err
    memory.rm_file(place)
    done = uv(capsys, "check", repaired)
    assert done.code == 4 and f"{repaired}: the shard {shards[0]} is missing" in done.err
    memory.pipe_file(place, content)
    memory.pipe_file("/bucket/repaired/uvmerge.json", b"{}")
    done = uv(capsys, "check", repaired)
    assert done.code == 4 and "is not a manifest as uvmerge writes it" in done.err


def test_check_of_an_adapter_in_a_store(bucket: str) -> None:
    pair = (f"{bucket}/base", f"{bucket}/finetuned")
    uvmerge.restore(*pair, f"{bucket}/adapter", top=0.2, emit="adapter", quiet=True)
    assert "modules" in uvmerge.check(f"{bucket}/adapter", against=pair[1])["fits"]


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    base, finetuned, _ = faults.pair(tmp_path, layers=1)
    for words in (
        ("restore", "s3://bucket/base", finetuned, tmp_path / "out"),
        ("restore", base, finetuned, "s3://bucket/out"),
        ("show", "s3://bucket/base"),
    ):
        done = uv(capsys, *words)
        assert done.code == 2
        assert "needs s3fs" in done.err and "pip install 'uvmerge[s3]'" in done.err
        assert "Traceback" not in done.err
    assert uv(capsys, "restore", base, finetuned, tmp_path / "out").code == 0  # all else works


def test_an_unknown_kind_of_store_is_refused(capsys: Capsys) -> None:
    done = uv(capsys, "show", "s4://bucket/base")
    assert done.code == 2 and "s4:// is no kind of store that is known" in done.err


def test_which_references_are_urls_of_stores() -> None:
    assert is_store("s3://bucket/prefix") and is_store("gs://bucket")
    others = ("hf://org/name", "https://huggingface.co/org/name", "org/name", "./s3:/x", "s3:///x")
    assert not any(map(is_store, others))


def test_uploads_that_are_not_complete_are_listed_page_by_page() -> None:
    asked = []

    class Pages:
        def split_path(self, path: str) -> tuple[str, str, None]:
            return "bucket", "team/out", None

        def call_s3(self, method: str, **words: str) -> dict[str, Any]:
            asked.append((method, words))
            if "KeyMarker" in words:
                return {"IsTruncated": False}
            found = {"Key": "team/out/a.safetensors", "UploadId": "1"}
            return {
                "Uploads": [found],
                "IsTruncated": True,
                "NextKeyMarker": "a",
                "NextUploadIdMarker": "1",
            }

    store = Store("memory://bucket/team/out")
    store.fs = Pages()
    assert list(store.open_uploads()) == [("a.safetensors", "1")]
    first = {"Bucket": "bucket", "Prefix": "team/out/"}
    assert [words for _, words in asked] == [
        first,
        first | {"KeyMarker": "a", "UploadIdMarker": "1"},
    ]


def test_a_store_that_changes_is_refused(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    from uvmerge.stores.reading import StoreFile

    stream = StoreFile._stream

    def streamed(self: StoreFile, start: int, stop: int, write: object) -> None:
        stream(self, start, stop, write)  # type: ignore[arg-type]
        if start > 8 and self.name.startswith("base/"):
            MemoryFileSystem().pipe_file(f"/bucket/base/{zoo.SINGLE}", b"another version")

    monkeypatch.setattr(StoreFile, "_stream", streamed)
    with pytest.raises(uvmerge.InputRefused, match="changed in the store"):
        uvmerge.restore(f"{bucket}/base", f"{bucket}/finetuned", tmp_path / "out", top=0.2)
    assert not (tmp_path / "out").exists()
