"""A pushed output is made again from its recipe and lock by someone else, and every file compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hub_server
import hub_uploads
import pytest
import torch
import zoo
from command import uv
from hub_server import Content, Hub
from safetensors.torch import load_file, save_file

import uvmerge
from uvmerge.hub import session
from uvmerge.output import manifest

Capsys = pytest.CaptureFixture[str]
# huggingface_hub hands an upload to its HTTP client in a way that this warns of.
UPLOAD = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
pytestmark = [pytest.mark.hub, UPLOAD]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub with a pair and an output that was pushed, seen by someone with an empty cache."""
    hub_uploads.install(monkeypatch)
    monkeypatch.setattr(session, "_WAITS_S", (0.01,))
    base, sft = zoo.pair("llama", tmp_path / "pair", dtype="bfloat16")
    with hub_server.serving({"org/base": base, "org/sft": sft}) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        uvmerge.restore("org/base", "org/sft", tmp_path / "out", rank=2, max_shard_size=40_000,
                        precision="fast")  # fmt: skip
        uvmerge.push(tmp_path / "out", "org/new")
        hub_server.use(served, tmp_path / "second", monkeypatch)
        yield served


def reproduce(capsys: Capsys, tmp_path: Path, *words: str) -> Any:
    done = uv(capsys, "reproduce", "org/new", tmp_path / "again", "--json", *words)
    return done, json.loads(done.out)


def replaced(hub: Hub, name: str, change: Callable[[bytes], bytes]) -> None:
    """A later commit in which one file has other bytes."""
    repository = hub.repositories["org/new"]
    files = dict(repository.refs["main"].files)
    files[name] = Content(change(b"".join(files[name].pieces())), files[name].is_large)
    repository.commit("main", files, "changed")
    hub.objects[files[name].sha256] = files[name]


def relocked(hub: Hub, change: Callable[[dict[str, Any]], None]) -> None:
    """A later commit whose manifest was written by someone who can seal it."""

    def changed(raw: bytes) -> bytes:
        content = json.loads(raw)
        change(content)
        return manifest.to_bytes(manifest.sealed(content))

    replaced(hub, manifest.NAME, changed)


def shard_of(hub: Hub, tensor: str) -> str:
    raw = b"".join(
        hub.repositories["org/new"].refs["main"].files["model.safetensors.index.json"].pieces()
    )
    return str(json.loads(raw)["weight_map"][tensor])


def test_another_machine_gets_identical_files(hub: Hub, tmp_path: Path, capsys: Capsys) -> None:
    done, said = reproduce(capsys, tmp_path)
    assert done.code == 0, done.err
    assert said["verdict"] == "identical" and said["environment"] == []
    lock = json.loads((tmp_path / "out" / "uvmerge.json").read_text())
    assert {n for n in lock["files"] if n != "README.md"} == set(said["files"])
    assert len([name for name in said["files"] if name.endswith(".safetensors")]) > 1
    again = json.loads((tmp_path / "again" / "uvmerge.json").read_text())
    assert again["settings"]["precision"] == "fast"  # that of the lock
    for name in said["files"]:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_flipped_byte_of_a_shard_names_file_and_tensor(
    hub: Hub, tmp_path: Path, capsys: Capsys
) -> None:
    tensor = "model.norm.weight"
    name = shard_of(hub, tensor)

    def flipped(raw: bytes) -> bytes:
        size = int.from_bytes(raw[:8], "little")
        at = 8 + size + json.loads(raw[8 : 8 + size])[tensor]["data_offsets"][0]
        return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]

    replaced(hub, name, flipped)
    done, said = reproduce(capsys, tmp_path)
    assert done.code == 4
    assert said["problems"] == [
        f"{name}: different: is not the file that was pushed; 1 tensor: {tensor}"
    ]


@pytest.mark.parametrize(("factor", "verdict"), [(1 + 2**-7, "equal"), (1.5, "different")])
def test_a_tensor_that_another_machine_rounded_otherwise_is_equal_within_a_bound(
    factor: float, verdict: str, hub: Hub, tmp_path: Path, capsys: Capsys
) -> None:
    """The owner's machine gave other bytes, and the lock says so: a file that is not replaced."""
    tensor = "model.layers.0.mlp.up_proj.weight"
    name = shard_of(hub, tensor)

    def rounded(raw: bytes) -> bytes:
        (tmp_path / "shard").write_bytes(raw)
        tensors = load_file(tmp_path / "shard")
        values = tensors[tensor].flatten()
        values[:7] = (values[:7].float() * factor).to(torch.bfloat16)
        if factor > 1.1:
            values *= factor
        tensors[tensor] = values.reshape(tensors[tensor].shape)
        save_file(tensors, tmp_path / "shard", {"format": "pt"})
        return (tmp_path / "shard").read_bytes()

    replaced(hub, name, rounded)
    digest = hub.repositories["org/new"].refs["main"].files[name].sha256
    relocked(hub, lambda content: content["lock"]["files"].update({name: digest}))
    done, said = reproduce(capsys, tmp_path)
    if verdict == "different":
        assert done.code == 4 and said["problems"] == [f"{name}: different: 1 tensor: {tensor}"]
        return
    assert done.code == 0, done.err
    assert said["verdict"].startswith("equal within ") and said["files"][name]["verdict"] == "equal"
    assert 0 < said["files"][name]["within"] < 2**-7


def test_another_environment_is_graded_by_what_can_change_bytes(
    hub: Hub, tmp_path: Path, capsys: Capsys
) -> None:
    def older(content: dict[str, Any]) -> None:
        content["versions"] |= {"torch": "2.0.0", "python": "3.9.0"}
        first = next(iter(content["edited"].values()))
        first["method"] = ["svd"]

    relocked(hub, older)
    done, said = reproduce(capsys, tmp_path)
    assert done.code == 0, done.err
    graded = {each["what"]: each["severity"] for each in said["environment"]}
    assert graded["python"] == "harmless" and graded["torch"] == "may differ"
    assert graded["method of 1 matrix, the first"] == "may differ"
    assert "may differ: torch 2.0.0 then" in done.err


def test_a_side_file_that_was_changed_is_different(
    hub: Hub, tmp_path: Path, capsys: Capsys
) -> None:
    replaced(hub, "config.json", lambda raw: raw.replace(b"llama", b"other"))
    done, said = reproduce(capsys, tmp_path)
    assert done.code == 4 and said["problems"] == ["config.json: different: other bytes"]


def _no_lock(content: dict[str, Any]) -> None:
    del content["lock"]


def _up(content: dict[str, Any]) -> None:
    content["lock"]["files"]["../up"] = "0" * 64


def _other_input(content: dict[str, Any]) -> None:
    content["lock"]["inputs"]["base"]["files"]["config.json"] = "0" * 64


def _other_recipe(content: dict[str, Any]) -> None:
    content["recipe"]["steps"] = [{"values": {}}]


def _a_path(content: dict[str, Any]) -> None:
    content["recipe"]["base"] = "/etc/base"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_no_lock, "its manifest has no lock"),
        (_up, "its lock is not as uvmerge writes it"),
        (_other_input, "base: config.json of org/base is not the file of the lock"),
        (_other_recipe, "uvmerge.yaml and uvmerge.json hold different recipes"),
        (_a_path, "a recipe from the Hub names models of the Hub alone"),
    ],
)
def test_a_lock_that_cannot_be_followed_is_refused_before_anything_is_made(
    change: Callable[[dict[str, Any]], None], sentence: str, hub: Hub, tmp_path: Path,
    capsys: Capsys,
) -> None:  # fmt: skip
    relocked(hub, change)
    done = uv(capsys, "reproduce", "org/new", tmp_path / "again")
    assert done.code in (2, 3) and sentence in done.err, done.err
    assert "Traceback" not in done.err and not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("repo", "code", "sentence"),
    [
        ("org/base", 3, "has no uvmerge.json: `uvmerge push` did not make it"),
        ("org/none", 3, "no such model, or it is private"),
        ("out", 3, "is no model of the Hub"),
    ],
)
def test_a_model_that_was_not_pushed_by_uvmerge_is_refused(
    repo: str, code: int, sentence: str, hub: Hub, capsys: Capsys
) -> None:
    done = uv(capsys, "reproduce", repo)
    assert done.code == code and sentence in done.err
    assert len(done.err.strip().splitlines()) == 2
