"""The Python calls: the public surface, its signatures, and that it is the command line's twin."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest
import zoo
from command import uv

import uvmerge
from uvmerge.api.run import FilterOptions, RunOptions, StepOptions
from uvmerge.operations import operations


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return zoo.pair("llama", tmp_path_factory.mktemp("pair"))


def test_the_public_surface_is_one_sorted_list_of_what_is_there() -> None:
    assert uvmerge.__all__ == sorted(uvmerge.__all__)
    assert all(hasattr(uvmerge, name) for name in uvmerge.__all__)
    assert {o.name for o in operations().values()} <= set(dir(uvmerge))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'restor'"):
        _ = uvmerge.restor


def test_an_operation_shows_its_signature_and_help() -> None:
    signature = inspect.signature(uvmerge.restore)
    assert list(signature.parameters)[:4] == ["base", "finetuned", "out", "top"]
    assert {"layers", "device", "overwrite", "quiet"} <= signature.parameters.keys()
    assert "Formula:" in (uvmerge.restore.__doc__ or "")


def test_the_stub_says_what_the_registry_says() -> None:
    stub = ast.parse(Path(uvmerge.__file__).with_suffix(".pyi").read_text())
    functions = {f.name: f for f in stub.body if isinstance(f, ast.FunctionDef)}
    known = {o.name: o for o in operations().values()}
    assert functions.keys() - known.keys() == {"__getattr__"}
    for name, function in functions.items():
        if name in known:
            assert [a.arg for a in function.args.kwonlyargs] == [
                p.name for p in known[name].parameters
            ]
    assert StepOptions.__annotations__.keys() >= {"layers", *FilterOptions.__annotations__}
    assert RunOptions.__annotations__.keys() == {
        name for name, p in inspect.signature(uvmerge.run).parameters.items()
        if p.kind is p.KEYWORD_ONLY and name not in ("base", "finetuned", "models")
    }  # fmt: skip


def test_a_call_and_a_command_write_the_same_folder(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = uvmerge.restore(*pair, tmp_path / "a", top=0.3, layers="1-2", modules="mlp")
    words = ["--top", "0.3", "--layers", "1-2", "--modules", "mlp"]
    assert uv(capsys, "restore", *pair, tmp_path / "b", *words).code == 0
    assert result.plan.counts()["edited"] == 6
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_call_raises_what_a_command_prints(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(uvmerge.InputRefused) as caught:
        uvmerge.restore(*pair, tmp_path / "a", layers=[99])
    shown = uv(capsys, "restore", *pair, tmp_path / "a", "--layers", "99")
    assert shown.code == caught.value.exit_code == 3
    assert str(caught.value).splitlines()[0] in shown.err
    assert "the model has 4 decoder layers (0 to 3), not layer 99" in shown.err


def test_unknown_options_suggest_a_near_one(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(uvmerge.UsageError, match=r"(?s)rnak.*Did you mean 'rank'"):
        uvmerge.restore(*pair, tmp_path / "a", rnak=3)


def test_sharding_writes_an_index_that_transformers_reads(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    uvmerge.restore(*pair, out, max_shard_size="50KB")
    shards = sorted(path.name for path in out.glob("*.safetensors"))
    assert len(shards) >= 3 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    uvmerge.restore(*pair, tmp_path / "whole")
    assert zoo.raw(out) == zoo.raw(tmp_path / "whole")
    _, report = zoo.load(out)
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_dtype_converts_every_tensor_and_the_config(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    uvmerge.restore(*pair, out, top=0, dtype="float32")
    before, after = zoo.tensors(pair[1]), zoo.tensors(out)
    assert all(str(t.dtype) == "torch.float32" for t in after.values())
    assert all((before[name].float() == after[name]).all() for name in before)
    assert '"dtype": "float32"' in (out / "config.json").read_text()


def test_progress_is_silent_by_default(
    pair: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    uvmerge.restore(*pair, tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_reset_layers_needs_no_device(pair: tuple[Path, Path], tmp_path: Path) -> None:
    uvmerge.reset_layers(*pair, tmp_path / "out", device="cuda")
    content = json.loads((tmp_path / "out" / "uvmerge.json").read_text())
    assert content["settings"]["device"] == "none"
