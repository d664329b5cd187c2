"""A checkpoint of the Hub is planned from headers, and of its weights only what is read is fetched."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import faults
import hub_server
import pytest
import zoo
from command import process, uv
from hub_server import COMMIT, Fault, Hub

import uvmerge
from uvmerge.engine.settings import Control
from uvmerge.hub import download, ranged, session
from uvmerge.hub.pieces import Pieces
from uvmerge.hub.spans import cut, merged, total, without

pytestmark = pytest.mark.hub
Capsys = pytest.CaptureFixture[str]
WEIGHTS = "GET /(cdn/|org/base/resolve/.*safetensors)"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return faults.pair(tmp_path_factory.mktemp("pair"), layers=12, hidden=32)[:2]


@pytest.fixture
def hub(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(ranged, "SAMPLE_GAP_BYTES", 0)
    monkeypatch.setattr(session, "_WAITS_S", (0.01, 0.01))
    with hub_server.serving({"org/base": pair[0], "org/sft": pair[1]}) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        yield served


def weight_spans(hub: Hub) -> list[tuple[int, int]]:
    """The ranges of weight files that were sent, the headers too."""
    return [each.span for each in hub.log if each.span is not None and each.sent]


def data_start(folder: Path) -> int:
    with (folder / zoo.SINGLE).open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


# --- what is read ------------------------------------------------------------------------------


def test_a_dry_run_asks_for_the_listing_the_config_and_the_header_alone(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    words = ("reset-layers", "org/base", pair[1], tmp_path / "out", "--frac", "0.25")
    done = uv(capsys, *words, "--dry-run")
    assert done.code == 0, done.err
    assert max(stop for _, stop in weight_spans(hub)) == data_start(pair[0])  # no weight byte
    assert sorted(weight_spans(hub)) == [(0, 8), (8, data_start(pair[0]))]
    assert "of base from the Hub in 1 request; saves" in done.out
    assert "values of base are on the Hub and were not looked at for this plan" in done.out
    before = len(hub.log)
    assert uv(capsys, *words, "--dry-run", "--json").code == 0
    assert not any(each.span for each in hub.log[before:])  # the header is kept


def test_a_dry_run_on_the_base_of_the_demo_transfers_less_than_32_kb(
    hub: Hub, tmp_path: Path, capsys: Capsys
) -> None:
    demo = Path(uvmerge.__file__).parent / "demo" / "data" / "part"
    hub.add("org/demo", demo / "base")
    words = ("reset-layers", "org/demo", demo / "finetuned", tmp_path / "out", "--frac", "0.25")
    assert uv(capsys, *words, "--dry-run").code == 0
    assert sum(each.sent + each.head for each in hub.log) < 32_000
    assert max(stop for _, stop in weight_spans(hub)) == data_start(demo / "base")


def test_only_the_tensors_of_the_plan_are_fetched_and_the_bytes_are_those_of_a_local_run(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    done = uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", frac=0.25)
    local = uvmerge.reset_layers(pair[0], pair[1], tmp_path / "local", frac=0.25)
    assert zoo.raw(done.out) == zoo.raw(local.out)
    whole = (pair[0] / zoo.SINGLE).stat().st_size
    said = done.as_data()["fetched"]["base"]
    assert said["of_bytes"] == whole and said["bytes"] + said["saved_bytes"] == whole
    read = sum(step.size_bytes for step in done.plan.taken)
    assert hub.sent("GET /cdn") < 1.2 * read + data_start(pair[0]) < 0.35 * whole
    assert sum(stop - start for start, stop in weight_spans(hub)) == hub.sent("GET /cdn")


def test_every_request_names_the_commit_that_the_branch_was_resolved_to(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    def moved() -> None:
        hub.repositories["org/base"].commit("main", {}, "everything is gone")

    hub.faults.append(Fault("GET /org/base/resolve", before=moved))
    done = uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", frac=0.25)
    assert done.plan.inputs["base"]["commit"] == COMMIT
    asked = [line for line in hub.asked if line.startswith("GET /org/base/resolve/")]
    assert asked and all(f"/{COMMIT}/" in line for line in asked)
    assert sum("/api/models/org/base" in line for line in hub.asked) == 1
    recipe = json.loads((tmp_path / "out" / "uvmerge.json").read_text())["recipe"]
    assert recipe["base"] == f"org/base@{COMMIT}"


def test_a_file_that_is_read_whole_goes_through_the_cache_of_the_hub_and_is_hashed(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WHOLE_FROM", 0.5)
    words = {"quiet": True, "force": True}  # no samples are read before
    done = uvmerge.restore("org/base", "org/sft", tmp_path / "out", **words)
    cached = list((tmp_path / "hf" / "hub").rglob(f"snapshots/{COMMIT}/{zoo.SINGLE}"))
    assert len(cached) == 1  # of the base, embeddings and head are not read
    assert done.fetched["finetuned"]["requests"] == 1
    before = hub.sent("GET /cdn")
    again = uvmerge.restore("org/base", "org/sft", tmp_path / "again", **words)
    assert hub.sent("GET /cdn") == before and zoo.raw(again.out) == zoo.raw(done.out)
    damaged = bytearray(cached[0].read_bytes())
    damaged[-1] ^= 1
    cached[0].write_bytes(damaged)
    with pytest.raises(uvmerge.InputRefused, match="other bytes in the Hub's cache"):
        uvmerge.restore("org/base", "org/sft", tmp_path / "third", **words)
    assert not (tmp_path / "third").exists()


def test_show_reads_no_weights(hub: Hub, pair: tuple[Path, Path]) -> None:
    shown = uvmerge.show("org/base")
    local = uvmerge.show(pair[0])
    assert shown["tensors"] == local["tensors"] and shown["commit"] == COMMIT
    assert max(stop for _, stop in weight_spans(hub)) == data_start(pair[0])


def test_small_files_are_checked_by_their_hash(hub: Hub, tmp_path: Path) -> None:
    uvmerge.show("org/base")
    (config,) = (tmp_path / "hf" / "uvmerge").rglob("config.json")
    original = config.read_bytes()
    config.write_bytes(original.replace(b"1", b"2"))
    uvmerge.show("org/base")
    assert config.read_bytes() == original


def test_the_token_goes_to_the_hub_and_to_no_other_host(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    hub.repositories["org/base"].is_private = True
    uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", frac=0.25)
    sent = {each.path.split("/")[1]: each.authorised for each in hub.log}
    assert sent["org"] is True and sent["cdn"] is False


def test_a_model_in_several_shards_is_read_by_shard(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    shards = faults.write(tmp_path / "shards", zoo.tensors(pair[0]), shards=4)
    hub.add("org/shards", shards)
    done = uvmerge.reset_layers("org/shards", pair[1], tmp_path / "out", layers="3")
    local = uvmerge.reset_layers(shards, pair[1], tmp_path / "local", layers="3")
    assert zoo.raw(done.out) == zoo.raw(local.out)


def test_experts_of_a_fused_tensor_are_read_alone(hub: Hub, tmp_path: Path) -> None:
    base, finetuned = zoo.pair("gpt_oss", tmp_path / "moe")
    hub.add("org/moe", base)
    done = uvmerge.restore("org/moe", finetuned, tmp_path / "out", top=0.2)
    local = uvmerge.restore(base, finetuned, tmp_path / "local", top=0.2)
    assert any(block.view.expert for step in done.plan.edits for block in step.blocks)
    assert zoo.raw(done.out) == zoo.raw(local.out)


# --- what fails --------------------------------------------------------------------------------


def test_connections_that_drop_at_random_moments_cost_no_byte_twice(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    monkeypatch.setattr(session, "_WAITS_S", ())  # each drop ends the command
    monkeypatch.setattr(ranged, "AT_ONCE", 1)
    for _ in range(5):
        hub.faults = [Fault("GET /cdn", drop_after=draw.randrange(1, 20_000))]
        try:
            uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", frac=0.25, quiet=True)
        except uvmerge.InputRefused as refused:
            assert "run the same command again to resume" in str(refused)
    hub.faults = []
    done = uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", frac=0.25, quiet=True)
    local = uvmerge.reset_layers(pair[0], pair[1], tmp_path / "local", frac=0.25)
    assert zoo.raw(done.out) == zoo.raw(local.out)
    undisturbed = sum(step.size_bytes for step in done.plan.taken)
    assert hub.sent("GET /cdn") < 1.2 * undisturbed + data_start(pair[0])


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(
    status: int, hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    hub.faults = [
        Fault("GET /api/models", status=status, headers={"Retry-After": "0"}),
        Fault("GET /org/base/resolve/.*safetensors", status=status),
        Fault("GET /cdn", drop_after=3),
    ]
    assert uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", frac=0.25).out is not None
    assert not any(fault.times for fault in hub.faults)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("GET /cdn", 99, ignores_range=True), "is sent whole where a part of it was asked"),
        (Fault(WEIGHTS, 99, etag='"00"'), "changed on the server at commit 01234567"),
        (Fault("HEAD /org/base/resolve", 99, etag='"00"'), "changed on the server at commit"),
        (Fault("GET /cdn", 99, drop_after=4), "cannot be fetched from the Hub"),
        (Fault("GET /org/base/resolve/.*config", 99, drop_after=4), "org/base"),
        (Fault("GET /org/base/resolve", 99, status=403), "access is gated"),
        (Fault("GET /org/base/resolve/.*safetensors", 99, status=403), "access is gated"),
        (Fault("GET /api/models/org/base", 99, status=401), "no such model, or it is private"),
        (Fault("GET /api/models/org/base", 99, status=403), "access is gated"),
    ],
)
def test_a_server_that_sends_something_else_is_refused_in_one_line_and_a_hint(
    fault: Fault, sentence: str, hub: Hub, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    hub.faults = [fault]
    done = uv(capsys, "reset-layers", "org/base", pair[1], tmp_path / "out", "--frac", "0.25", "-q")
    assert done.code == 3 and sentence in done.err, done.err
    assert len(done.err.strip().splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_a_header_that_is_cut_short_in_the_file_is_refused(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(pair[0], broken)
    os.truncate(broken / zoo.SINGLE, 200)
    hub.add("org/broken", broken)
    done = uv(capsys, "restore", "org/broken", pair[1], tmp_path / "out", "-q")
    assert done.code == 3 and "org/broken/model.safetensors" in done.err


def test_offline_works_with_what_is_kept_and_says_what_is_not(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = uvmerge.reset_layers("org/base", pair[1], tmp_path / "a", frac=0.25, quiet=True)
    before = len(hub.log)
    hub_server.use(hub, tmp_path / "hf", monkeypatch, offline=True)
    again = uvmerge.reset_layers("org/base@main", pair[1], tmp_path / "b", frac=0.25, quiet=True)
    assert zoo.raw(first.out) == zoo.raw(again.out) and len(hub.log) == before
    with pytest.raises(uvmerge.InputRefused, match="cannot be fetched from the Hub"):
        uvmerge.reset_layers("org/base", pair[1], tmp_path / "c", frac=0.5, quiet=True)
    with pytest.raises(uvmerge.InputRefused, match="not in the local cache"):
        uvmerge.reset_layers("org/sft", pair[1], tmp_path / "c", frac=0.5, quiet=True)


def test_what_another_program_put_into_the_cache_of_the_hub_is_used_offline_too(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("org/base")
    before = hub.sent("GET /cdn")
    first = uvmerge.reset_layers("org/base", pair[1], tmp_path / "a", frac=0.25, quiet=True)
    assert hub.sent("GET /cdn") == before and first.fetched["base"]["bytes"] == 0
    shutil.rmtree(tmp_path / "hf" / "uvmerge")
    hub_server.use(hub, tmp_path / "hf", monkeypatch, offline=True)
    again = uvmerge.reset_layers("org/base", pair[1], tmp_path / "b", frac=0.25, quiet=True)
    assert zoo.raw(first.out) == zoo.raw(again.out)


def test_a_disk_without_room_is_refused_before_the_download(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 10

    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: Full)
    from uvmerge.output import disk

    monkeypatch.setattr(disk, "refuse_full", lambda *words: None)
    with pytest.raises(uvmerge.InputRefused, match="the download needs"):
        uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", frac=0.25, force=True)
    assert max(stop for _, stop in weight_spans(hub)) == data_start(pair[0])


def test_a_run_that_was_killed_between_download_and_end_resumes_with_the_same_bytes(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    control = Control()
    control.advance = lambda name, work: control.stop.set()
    words = {"frac": 0.25, "quiet": True}
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", control=control, **words)
    shutil.rmtree(tmp_path / "hf")  # the pieces are gone, the journal beside OUT is not
    done = uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", **words)
    local = uvmerge.reset_layers(pair[0], pair[1], tmp_path / "local", frac=0.25)
    assert zoo.raw(done.out) == zoo.raw(local.out)


def test_a_stop_ends_a_download(hub: Hub, pair: tuple[Path, Path], tmp_path: Path) -> None:
    control = Control()
    control.stop.set()
    with pytest.raises(uvmerge.Interrupted, match="download"):
        uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", frac=1.0, control=control)
    assert not list(tmp_path.glob("out*"))


def test_a_process_that_is_killed_while_it_fetches_is_gone_on_with(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ["reset-layers", "org/base", pair[1], tmp_path / "out", "--frac", "0.25", "-q"]
    child = subprocess.Popen(
        [sys.executable, "-m", "uvmerge", *map(str, words)],
        env={**os.environ, **hub_server.environment(hub, tmp_path / "hf")},
    )
    hub.faults = [
        Fault("GET /cdn", times=2),  # the header comes whole
        Fault("GET /cdn", before=child.kill, drop_after=100),
    ]
    assert child.wait(60) == -9 and not (tmp_path / "out").exists()
    hub.faults = []
    done = uvmerge.reset_layers("org/base", pair[1], tmp_path / "out", frac=0.25, quiet=True)
    local = uvmerge.reset_layers(pair[0], pair[1], tmp_path / "local", frac=0.25)
    assert zoo.raw(done.out) == zoo.raw(local.out)


def test_a_file_name_that_leads_out_of_the_folder_is_refused(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    files = hub.repositories["org/base"].refs["main"].files
    files["../../evil.safetensors"] = files[zoo.SINGLE]
    with pytest.raises(uvmerge.InputRefused, match="may lie outside the folder"):
        uvmerge.show("org/base")
    assert not list(tmp_path.rglob("evil.safetensors"))


# --- references --------------------------------------------------------------------------------


def test_a_folder_wins_over_a_model_and_that_is_said(
    hub: Hub,
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capsys,
) -> None:
    shutil.copytree(pair[0], tmp_path / "org" / "base")
    monkeypatch.chdir(tmp_path)
    words = ("--frac", "0.25", "--dry-run")
    done = uv(capsys, "reset-layers", "org/base", pair[1], "out", *words)
    assert "note: base is the folder org/base; hf://org/base is the model of the Hub" in done.out
    assert not hub.log
    done = uv(capsys, "reset-layers", "./org/base", pair[1], "out", *words)
    assert "is the folder" not in done.out and not hub.log
    done = uv(capsys, "reset-layers", f"hf://org/base@{COMMIT}", pair[1], "out", *words)
    assert done.code == 0 and any("/org/base" in line for line in hub.asked)


def test_the_client_finds_the_server_by_its_environment_alone(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("reset-layers", "org/base", pair[1], tmp_path / "out", "--frac", "0.25", "-q")
    done = process(*words, environment=hub_server.environment(hub, tmp_path / "other"))
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "other" / "uvmerge").is_dir() and not (tmp_path / "hf").exists()


# --- parts -------------------------------------------------------------------------------------


def test_spans_are_joined_subtracted_and_cut() -> None:
    assert merged([(5, 9), (0, 2), (2, 3), (8, 12), (4, 4)]) == [(0, 3), (5, 12)]
    assert merged([(0, 3), (5, 12)], gap=2) == [(0, 12)]
    draw = random.Random(3)
    for _ in range(200):
        sets = [[tuple(sorted(draw.sample(range(40), 2))) for _ in range(4)] for _ in range(2)]
        bytes_of = [{n for start, stop in each for n in range(start, stop)} for each in sets]
        left = without(merged(sets[0]), merged(sets[1]))
        assert {n for start, stop in left for n in range(start, stop)} == bytes_of[0] - bytes_of[1]
        assert total(left) == len(bytes_of[0] - bytes_of[1])
    assert list(cut([(0, 5), (7, 8)], 2)) == [(0, 2), (2, 4), (4, 5), (7, 8)]


def test_a_piece_counts_only_while_its_bytes_are_the_journalled_ones(tmp_path: Path) -> None:
    places = (tmp_path / "files" / "w", tmp_path / "pieces" / "w")
    with Pieces(*places, 100, "w").writing(10) as writer:
        writer.write(b"x" * 20)
    assert Pieces(*places, 100, "w").missing([(0, 40)]) == [(0, 10), (30, 40)]
    with places[1].open("a") as file:
        file.write("40 60 0123456789abcdef\n70 9")  # other bytes, and a line that a kill cut short
    assert Pieces(*places, 100, "w").missing([(10, 100)]) == [(30, 100)]
    os.truncate(places[0], 15)
    assert Pieces(*places, 100, "w").missing([(10, 30)]) == [(10, 30)]
    pieces = Pieces(*places, 100, "w")
    places[0].unlink()
    with pytest.raises(uvmerge.RunFailed, match="not there any more"):
        pieces.read_into(0, memoryview(bytearray(4)))


def test_a_file_of_pieces_that_another_process_replaced_is_not_written_into(tmp_path: Path) -> None:
    places = (tmp_path / "files" / "w", tmp_path / "pieces" / "w")
    first = Pieces(*places, 100, "w")
    with first.writing(0) as writer:
        writer.write(b"x" * 50)
    again = Pieces(*places, 100, "w")  # the same file
    assert again.missing([(0, 50)]) == [] and first.is_in_place()
    Pieces(*places, 120, "w")  # another size: another file
    assert not first.is_in_place()
    with pytest.raises(uvmerge.RunFailed, match="another file is in the place"):
        first.read_into(0, memoryview(bytearray(4)))
