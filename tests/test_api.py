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
from uvmerge.api import merge_docs, stub
from uvmerge.api.settings import OpenSettings, RunSettings, SpreadSettings, parameters
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


def test_the_stub_is_what_the_operations_and_settings_make_of_it() -> None:
    text = Path(uvmerge.__file__).with_suffix(".pyi").read_text()
    assert text == stub.stub(), "run `python -m uvmerge.api.stub`"
    functions = {f.name: f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef)}
    for operation in operations().values():
        named = [a.arg for a in functions[operation.name].args.kwonlyargs]
        if operation.takes_several:  # checkpoints and OUT may be named, too
            inputs = [*(each.name for each in operation.operands), "out"]
            assert named[: len(inputs)] == inputs
            named = named[len(inputs) :]
        assert named == [p.name for p in operation.parameters]
    types = {name for name in uvmerge.__all__ if name[0].islower()} - {"run_demo", "run_study"}
    assert functions.keys() == {*types, *(o.name for o in operations().values()), "__getattr__"}


def test_the_tables_of_the_options_are_what_the_operations_and_settings_make_of_them() -> None:
    assert stub.DOCS.read_text() == stub.docs(), "run `python -m uvmerge.api.stub`"
    assert merge_docs.DOCS.read_text() == merge_docs.merges_docs(), (
        "run `python -m uvmerge.api.stub`"
    )


def test_the_stub_sees_an_operation_or_an_option_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the two tests above compare changes with the operations and with the settings."""
    whole = stub.stub()
    fewer = {name: o for name, o in operations().items() if name != "swap"}
    monkeypatch.setattr(stub, "operations", lambda: fewer)
    assert "def swap(" in whole and "def swap(" not in stub.stub()
    monkeypatch.undo()
    monkeypatch.setattr(stub, "parameters", lambda settings: parameters(settings)[1:])
    assert "allow_pickle" in whole and "allow_pickle" not in stub.stub()


def test_every_setting_is_an_option_and_a_keyword(capsys: pytest.CaptureFixture[str]) -> None:
    for command, settings in (("restore", RunSettings), ("run", RunSettings),
                              ("diff", SpreadSettings), ("show", OpenSettings),
                              ("check", OpenSettings)):  # fmt: skip
        shown = uv(capsys, command, "--help").out
        assert all(f"--{p.key}" in shown for p in parameters(settings)), command
    keywords = inspect.signature(uvmerge.restore).parameters
    assert all(keywords[p.name].default == p.default for p in parameters(RunSettings))


def test_an_unknown_setting_suggests_a_near_one(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(uvmerge.UsageError, match=r"(?s)presicion.*Did you mean 'precision'"):
        uvmerge.run({"uvmerge": 1, "steps": ["restore"]}, tmp_path / "a", presicion="fast")
    with pytest.raises(uvmerge.UsageError, match=r"(?s)devise.*Did you mean 'device'"):
        uvmerge.diff(*pair, devise="cpu")
    with pytest.raises(uvmerge.UsageError, match="is not one of exact, fast"):
        uvmerge.restore(*pair, tmp_path / "a", precision="exakt")


def test_a_call_and_a_command_write_the_same_folder(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = uvmerge.restore(*pair, tmp_path / "a" / "out", top=0.3, layers="1-2", modules="mlp")
    words = ["--top", "0.3", "--layers", "1-2", "--modules", "mlp"]
    assert uv(capsys, "restore", *pair, tmp_path / "b" / "out", *words).code == 0
    assert result.plan.counts()["edited"] == 6
    for path in (tmp_path / "a" / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "out" / path.name).read_bytes(), path.name


def test_a_call_raises_what_a_command_prints(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(uvmerge.InputRefused) as caught:
        uvmerge.restore(*pair, tmp_path / "a", layers=[99])
    shown = uv(capsys, "restore", *pair, tmp_path / "a", "--layers", "99")
    assert shown.code == caught.value.exit_code == 3
    assert str(caught.value).splitlines()[0] in shown.err
    assert "the model has 4 layers (0 to 3), not layer 99" in shown.err


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
