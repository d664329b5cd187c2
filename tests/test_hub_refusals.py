"""Every input of the Hub that cannot be used is one line and a hint, with exit code 3 and no traceback."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faults
import hub_server
import pytest
import torch
import zoo
from command import Outcome, process, uv
from hub_server import Fault, Hub
from safetensors.torch import save_file

from uvmerge.hub import session

pytestmark = pytest.mark.hub
Capsys = pytest.CaptureFixture[str]
HIDDEN = 16
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"],
           "base_model_name_or_path": "org/base"}  # fmt: skip


def adapter(folder: Path, **changes: object) -> Path:
    """An adapter of one matrix."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**ADAPTER, **changes}))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    factors = {name.format("A"): torch.ones(2, HIDDEN), name.format("B"): torch.ones(HIDDEN, 2)}
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    base, sft = faults.pair(folder, layers=2, hidden=HIDDEN)[:2]
    shutil.copytree(base, folder / "cut")
    os.truncate(folder / "cut" / zoo.SINGLE, 200)
    return {
        "org/base": base, "org/sft": sft, "org/cut": folder / "cut",
        "org/of-another": adapter(folder / "of-another", base_model_name_or_path="org/other"),
        "org/of-a-kind": adapter(folder / "of-a-kind", peft_type="VERA"),
    }  # fmt: skip


@pytest.fixture
def hub(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(session, "_WAITS_S", (0.01, 0.01))
    with hub_server.serving(models) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        yield served


def edited(capsys: Capsys, tmp_path: Path, base: str = "org/base", sft: str = "org/sft") -> Outcome:
    return uv(capsys, "reset-layers", base, sft, tmp_path / "out", "--frac", "0.5", "-q")


def refused(done: Outcome, sentence: str, out: Path) -> None:
    assert done.code == 3 and done.out == "", done
    first, hint = done.err.strip().splitlines()
    assert first.startswith("error: ") and sentence in first and hint.startswith("  ")
    assert "Traceback" not in done.err and not out.exists()


@pytest.mark.parametrize(
    ("base", "sft", "sentence"),
    [
        ("org/none", "org/sft", "no such model, or it is private"),
        ("org/base", "org/none", "no such model, or it is private"),
        ("gated/model", "org/sft", "access is gated"),
        ("org/base@v9", "org/sft", "no revision 'v9'"),
        ("org/base", "hf://org/sft@v9", "no revision 'v9'"),
        ("org/cut", "org/sft", "org/cut/model.safetensors"),
        ("org/base", "org/cut", "org/cut/model.safetensors"),
    ],
)
def test_a_model_that_cannot_be_used(
    base: str, sft: str, sentence: str, hub: Hub, tmp_path: Path, capsys: Capsys
) -> None:
    refused(edited(capsys, tmp_path, base, sft), sentence, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("org/of-another", "was trained on org/other, BASE is org/base"),
        ("org/of-a-kind", "the peft_type VERA"),
    ],
)
def test_an_adapter_that_cannot_be_merged(
    name: str, sentence: str, hub: Hub, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    words = ("reset-layers", "org/base", name, tmp_path / "out", "--frac", "0.5", "-q")
    done = process(*words, environment=hub_server.environment(hub, tmp_path / "hf"))
    refused(done, sentence, tmp_path / "out")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("GET /cdn", 99, drop_after=4), "cannot be fetched from the Hub"),
        (Fault("GET /cdn", 99, ignores_range=True), "is sent whole where a part of it was asked"),
        (Fault("HEAD /org/base/resolve", 99, etag='"00"'), "changed on the server at commit"),
    ],
    ids=["header cut short", "200 for a range", "etag changes midway"],
)
@pytest.mark.parametrize("command", ["reset-layers", "diff", "anchor"])
def test_a_server_that_answers_otherwise(
    command: str, fault: Fault, sentence: str, hub: Hub, tmp_path: Path, capsys: Capsys
) -> None:
    hub.faults = [replace(fault)]  # which counts its times
    words: dict[str, list[object]] = {
        "reset-layers": ["reset-layers", "org/base", "org/sft", tmp_path / "out", "--frac", "0.5"],
        "diff": ["diff", "org/base", "org/sft", "--layers", "1"],
        "anchor": ["anchor", "build", "org/base", tmp_path / "out", "--layers", "1"],
    }
    refused(uv(capsys, *words[command], "-q"), sentence, tmp_path / "out")


def test_offline_without_and_with_a_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    hub_server.use(hub, tmp_path / "hf", monkeypatch, offline=True)
    out = tmp_path / "out"
    refused(edited(capsys, tmp_path), "not in the local cache, and the Hub cannot be reached", out)
    hub_server.use(hub, tmp_path / "hf", monkeypatch)
    assert edited(capsys, tmp_path).code == 0
    shutil.rmtree(out)
    hub_server.use(hub, tmp_path / "hf", monkeypatch, offline=True)
    assert edited(capsys, tmp_path).code == 0  # what is there suffices
    shutil.rmtree(out)
    done = uv(capsys, "reset-layers", "org/base", "org/sft", out, "--frac", "1", "-q")
    refused(done, "cannot be fetched from the Hub", out)
