"""`uvmerge check`: finds what is planted, and nothing where nothing is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import faults
import pytest
import torch
import zoo
from command import uv
from safetensors.torch import load_file, save_file

import uvmerge


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return zoo.pair("llama", tmp_path_factory.mktemp("pair"))


@pytest.fixture
def out(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    uvmerge.restore(*pair, tmp_path / "out", layers="0-1")
    return tmp_path / "out"


def change(name: str, edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def plant(out: Path) -> None:
        tensors = load_file(out / "model.safetensors")
        tensors[name] = edit(tensors[name])
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})

    return plant


def remove(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).unlink()


def append(name: str, data: bytes) -> Callable[[Path], None]:
    def plant(out: Path) -> None:
        with (out / name).open("ab") as file:
            file.write(data)

    return plant


def nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor[0, 0] = float("nan")
    return tensor


LAST = "model.layers.3.mlp.up_proj.weight"
FIRST = "model.layers.0.mlp.up_proj.weight"


def test_an_untouched_output_passes_every_check(
    out: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--load", "--against", pair[1], "--sha256", "--json"]
    shown = uv(capsys, "check", out, *words)
    report = json.loads(shown.out)
    assert shown.code == 0 and report["ok"] and report["changed"] == 14
    assert report["loaded"] == "LlamaForCausalLM, 4 layers"
    assert len(report["sha256"]["model.safetensors"]) == 64


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (append("model.safetensors", b"xx"), "has trailing bytes"),
        (remove("generation_config.json"), "generation_config.json is missing"),
        (remove("config.json"), "config.json is missing"),
        (append("config.json", b" "), "config.json has"),
        (
            append("stray.safetensors", b"x"),
            "1 weight file: stray.safetensors not written by uvmerge",
        ),
        (change(LAST, lambda t: t * 2), f"changed without being planned: 1 tensor: {LAST}"),
        (change(FIRST, nan), f"NaN or Inf in 1 tensor: {FIRST}"),
        (change(LAST, lambda t: t.float()), "dtypes differ from the fine-tuned checkpoint's"),
        (change(LAST, lambda t: t[:-1].clone()), "shapes differ from the fine-tuned checkpoint's"),
        (append("README.md", b"x"), "README.md has"),
    ],
)
def test_what_is_planted_is_found(
    plant: Callable[[Path], None],
    sentence: str,
    out: Path,
    pair: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(out)
    shown = uv(capsys, "check", out, "--against", pair[1])
    assert shown.code == 4
    assert sentence in shown.err


def test_an_edit_that_was_undone_is_found(
    out: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "model.safetensors").write_bytes((pair[1] / "model.safetensors").read_bytes())
    shown = uv(capsys, "check", out, "--against", pair[1], "--json")
    assert shown.code == 4
    problems = json.loads(shown.out)["problems"]
    assert any("yet unchanged: 14 tensors" in problem for problem in problems)


def test_load_finds_a_tensor_that_the_model_needs(
    out: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def drop(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in tensors.items() if name != LAST}

    zoo.rewrite(out, tmp_path / "less", drop)
    (tmp_path / "less" / "uvmerge.json").unlink(missing_ok=True)
    shown = uv(capsys, "check", tmp_path / "less", "--load")
    assert shown.code == 4 and f"missing keys: 1 tensor: {LAST}" in shown.err


def test_a_folder_that_uvmerge_did_not_write_is_checked_as_far_as_it_goes(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads(uv(capsys, "check", pair[0], "--json").out)
    assert report["ok"] and "uvmerge did not write this folder" in report["hashes"]


def test_a_missing_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert uv(capsys, "check", tmp_path / "none").code == 3


def test_python_files_of_a_checkpoint_are_not_run_by_load(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((out / "config.json").read_text())
    config |= {"architectures": ["Own"], "auto_map": {"AutoModel": "own.Own"}}
    (out / "config.json").write_text(json.dumps(config))
    (out / "own.py").write_text("raise SystemExit('ran')")
    (out / "uvmerge.json").unlink()
    shown = uv(capsys, "check", out, "--load")
    assert shown.code == 4 and "Python code of its own, which is not run here" in shown.err


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_converted_output_is_compared_as_converted(
    dtype: str, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shown = uv(capsys, "restore", *pair, out, "--dtype", dtype, "--include", "*q_proj*")
    assert f"4 changed, everything else converted to {dtype}" in shown.err
    report = json.loads(uv(capsys, "check", out, "--against", pair[1], "--json").out)
    assert report["ok"] and report["changed"] == 4
    assert f"converted to {dtype}" in (out / "README.md").read_text()
    change(LAST, lambda t: t * 1.5)(out)
    shown = uv(capsys, "check", out, "--against", pair[1])
    assert shown.code == 4 and f"changed without being planned: 1 tensor: {LAST}" in shown.err


def test_an_output_that_equals_the_input_says_so(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "restore", pair[1], pair[1], tmp_path / "same")
    assert shown.code == 0
    assert "0 changed, the output equals the fine-tuned checkpoint" in shown.err


def test_a_good_output_is_compared_with_a_pickled_input_on_request(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    for folder in pair[:2]:
        tensors = {
            n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()
        }
        for path in [*folder.glob("*.safetensors*")]:
            path.unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
    uvmerge.restore(*pair, top=0.25, allow_pickle=True)
    report = uvmerge.check(pair[2], against=pair[1], allow_pickle=True)
    assert report["changed"] == 6
    assert uvmerge.show(pair[1], allow_pickle=True)["files"] == 1
    refused = faults.uvmerge("check", pair[2], "--against", pair[1])
    faults.failed(refused, "error: ", "holds its weights as pickles", "--allow-pickle", code=3)
    assert "Do not use this checkpoint" not in refused.err


def test_what_the_side_files_name_has_to_be_there(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    config = json.loads((pair[1] / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_own.Own", "AutoConfig": "org/other--config.Own"}
    (pair[1] / "config.json").write_text(json.dumps(config))
    normalize = {"path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}
    modules = [{"path": ""}, {"path": "2_Dense"}, normalize]
    (pair[1] / "modules.json").write_text(json.dumps(modules))
    uvmerge.restore(*pair, top=0.25)
    with pytest.raises(uvmerge.ProblemsFound) as caught:
        uvmerge.check(pair[2])
    assert caught.value.problems == [
        "2_Dense, which modules.json names, is missing",
        "modeling_own.py, which auto_map names, is missing",
    ]


def test_brackets_in_the_name_of_a_tensor_are_part_of_it(tmp_path: Path) -> None:
    base = {name.replace("q_proj", "q[1]_proj"): t for name, t in faults.tensors().items()}
    pair = faults.pair_of(tmp_path, base, faults.tuned(base))
    faults.done(faults.restore(*pair))
    faults.done(faults.uvmerge("check", pair[2], "--against", pair[1]))
