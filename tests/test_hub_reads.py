"""`diff`, `anchor`, `check --against` and `search` fetch what they read of the Hub, and refuse before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import faults
import hub_server
import pytest
from command import uv
from hub_server import Hub

import uvmerge
from uvmerge.hub import ranged, remote, session

pytestmark = pytest.mark.hub
Capsys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return faults.pair(tmp_path_factory.mktemp("pair"), layers=6, hidden=64)[:2]


@pytest.fixture
def hub(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(remote, "GAP_BYTES", 256)
    monkeypatch.setattr(ranged, "SAMPLE_GAP_BYTES", 0)
    monkeypatch.setattr(session, "_WAITS_S", (0.01, 0.01))
    with hub_server.serving({"org/base": pair[0], "org/sft": pair[1]}) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        yield served


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def data_start(folder: Path) -> int:
    with weights(folder).open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def read_weights(hub: Hub, pair: tuple[Path, Path]) -> int:
    """Bytes of tensors that the server sent."""
    start = data_start(pair[0])
    spans = [each.span or (0, each.sent) for each in hub.log if each.path.startswith("/cdn/")]
    return sum(max(0, stop - max(begin, start)) for begin, stop in spans)


def test_a_diff_of_some_layers_fetches_those_alone(
    hub: Hub, pair: tuple[Path, Path], capsys: Capsys
) -> None:
    words = ("--layers", "2", "--rank", "4", "--json")
    done = uv(capsys, "diff", "org/base", "org/sft", *words)
    assert done.code == 0, done.err
    local = uv(capsys, "diff", *pair, *words)
    ours, theirs = (json.loads(each.out)["checkpoints"][0]["matrices"] for each in (done, local))
    assert ours == theirs
    whole = sum(weights(folder).stat().st_size for folder in pair)
    assert 0 < read_weights(hub, pair) < whole / 4
    said = done.err
    assert "of base from the Hub in" in said and "of fine-tuned from the Hub in" in said


def test_a_diff_of_everything_puts_whole_files_into_the_cache_of_the_hub(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    found = uvmerge.diff("org/base", "org/sft", "org/sft", rank=4, quiet=True)
    local = uvmerge.diff(*pair, pair[1], rank=4, quiet=True)
    assert [c["matrices"] for c in found.as_data()["checkpoints"]] == [
        c["matrices"] for c in local.as_data()["checkpoints"]
    ]
    cached = list((tmp_path / "hf" / "hub").rglob("snapshots/*/model.safetensors"))
    assert len(cached) == 2
    before = read_weights(hub, pair)
    uvmerge.diff("org/base", "org/sft", layers="1", rank=4, quiet=True)
    assert read_weights(hub, pair) == before


@pytest.mark.parametrize("command", ["diff", "check", "anchor", "search"])
def test_what_headers_show_is_refused_before_a_weight_is_fetched(
    command: str, hub: Hub, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    other = faults.pair(tmp_path / "other", layers=2, hidden=64)[0]
    hub.add("org/other", other)
    (tmp_path / "space.yaml").write_text("steps:\n- restore: {top: 2}\n")
    if command == "check":
        uvmerge.restore(*pair, tmp_path / "out", rank=2)
    words: dict[str, list[object]] = {
        "diff": ["diff", "org/base", "org/other", "-q"],
        "check": ["check", tmp_path / "out", "--against", "org/base"],
        "anchor": ["anchor", "build", "org/base", tmp_path / "a", "--layers", "77", "-q"],
        "search": [
            "search", tmp_path / "space.yaml", "org/base", "org/other", tmp_path / "s",
            "--evaluate", "true {}", "--metric", "id:max", "--metric", "ood:max",
        ],
    }  # fmt: skip
    done = uv(capsys, *words[command])
    assert done.code in (2, 3) and "Traceback" not in done.err, done.err
    assert len(done.err.strip().splitlines()) == 2
    samples = 6_000 if command == "check" else 0  # by which AGAINST is known as the base of OUT
    assert read_weights(hub, pair) <= samples


def test_an_anchor_of_some_layers_fetches_those_alone(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    words = {"layers": "2", "rank": 4}
    plan = uv(capsys, "anchor", "build", "org/base", tmp_path / "a", "--layers", "2", "--dry-run")
    assert plan.code == 0 and "of base from the Hub in" in plan.out
    assert read_weights(hub, pair) <= 100  # of embeddings and head: whether they are one tensor
    uvmerge.anchor_build("org/base", tmp_path / "remote", quiet=True, **words)
    fetched = read_weights(hub, pair)
    assert 0 < fetched < weights(pair[0]).stat().st_size / 4
    again = uvmerge.anchor_build("org/base", tmp_path / "remote", quiet=True, **words)
    assert again.was_there and read_weights(hub, pair) == fetched
    uvmerge.anchor_build(pair[0], tmp_path / "local", quiet=True, **words)
    assert (tmp_path / "remote").read_bytes() == (tmp_path / "local").read_bytes()


def test_check_compares_with_a_checkpoint_of_the_hub(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = uvmerge.restore(*pair, tmp_path / "out", rank=2).out
    assert out is not None
    local = uvmerge.check(out, against=pair[1])
    assert uvmerge.check(out, against="org/sft") | {"compared": ""} == local | {"compared": ""}


def test_a_folder_that_hides_a_model_is_named(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Capsys,
) -> None:  # fmt: skip
    shutil.copytree(pair[0], tmp_path / "org" / "base")
    monkeypatch.chdir(tmp_path)
    for words in (
        ["diff", "org/base", pair[1], "--rank", "2"],
        ["anchor", "build", "org/base", "a"],
    ):
        done = uv(capsys, *words, "--layers", "1")
        assert done.code == 0, done.err
        assert "note: base is the folder org/base; hf://org/base is the model" in done.err
    assert not hub.log
