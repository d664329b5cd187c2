"""Several adapters merged into one base: the bits of PEFT, the reference that names a sum, refusals."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import adapters
import command
import pytest
import zoo

import uvmerge
from uvmerge.checkpoint.adapter_sums import Term, sum_of, terms_of
from uvmerge.errors import InputRefused, UsageError

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")  # PEFT's


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, and the adapters `one`, `two`, `dora` and `saved` of it."""
    folder = tmp_path_factory.mktemp("models")
    base = zoo.make("llama", folder / "base", dtype="float32")
    adapters.make(base, folder / "one", target_modules=["q_proj", "v_proj", "embed_tokens"])
    adapters.make(base, folder / "two", r=3, target_modules=["q_proj", "o_proj"])
    adapters.make(base, folder / "dora", target_modules=["q_proj"], use_dora=True)
    adapters.make(base, folder / "saved", target_modules=["k_proj"], modules_to_save=["lm_head"])
    return folder


def by_peft(models: Path, scales: dict[str, float], folder: Path) -> dict[str, bytes]:
    """What PEFT makes of several adapters, merged in this order with these scales."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, *others = scales
        base = zoo.load(models / "base")[0]
        model = peft.PeftModel.from_pretrained(base, str(models / first), adapter_name=first)
        for name in others:
            model.load_adapter(str(models / name), adapter_name=name)
        for layer in (m for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)):
            for name in layer.scaling:
                layer.scaling[name] *= scales[name]
        model.merge_and_unload(safe_merge=True, adapter_names=list(scales)).save_pretrained(folder)
    return zoo.raw(folder)


@pytest.mark.parametrize(
    ("scales", "option"),
    [
        ({"one": 1.0}, "1"),
        ({"one": 0.5}, "0.5"),
        ({"one": 1.0, "two": 1.0}, "1"),
        ({"two": 0.7, "one": -0.3}, "0.7/-0.3"),
        ({"dora": 0.5}, "0.5"),
    ],
)
def test_a_merge_has_the_bits_of_pefts_own(
    scales: dict[str, float],
    option: str,
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [models / name for name in scales]
    out = tmp_path / "out"
    words = ("merge-lora", models / "base", *names, out, "--scale", option, "--quiet")
    done = command.uv(capsys, *words)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    expected, found = by_peft(models, scales, tmp_path / "peft"), zoo.raw(out)
    assert {name for name in found if found[name] != expected[name]} == set()
    assert found != zoo.raw(models / "base")


def test_a_sum_is_accepted_wherever_a_checkpoint_is(models: Path, tmp_path: Path) -> None:
    base, both = models / "base", f"0.5*{models / 'one'}+{models / 'two'}"
    uvmerge.merge_lora(base, models / "one", models / "two", tmp_path / "both", scale=[0.5, 1])
    uvmerge.restore(base, tmp_path / "both", tmp_path / "of-merged", rank=2)
    uvmerge.restore(base, both, tmp_path / "of-sum", rank=2)
    assert zoo.raw(tmp_path / "of-sum") == zoo.raw(tmp_path / "of-merged")
    manifest = json.loads((tmp_path / "of-sum" / "uvmerge.json").read_text())
    assert manifest["recipe"]["finetuned"] == "0.5*one+two"
    files = manifest["inputs"]["finetuned"]["files"]
    assert {"adapter_model.safetensors", "2:adapter_model.safetensors"} < files.keys()
    assert str(models) not in json.dumps(manifest)
    alone = uvmerge.show(f"1*{models / 'one'}+{models / 'two'}")  # the base is the one they name
    assert alone["reference"] == "one+two"


def test_a_sum_is_read_and_written() -> None:
    assert terms_of("0.5*a/b@main+-1e-3*c+d") == (
        Term(0.5, "a/b@main"), Term(-1e-3, "c"), Term(1.0, "d")
    )  # fmt: skip
    assert terms_of("org/name@v1.0") == terms_of("2*3*a") == terms_of("a++b") == ()
    assert sum_of(["a", "b"], [0.5, 1.0]) == "0.5*a+b" and sum_of(["a"], [1.0]) == "a"


def test_a_folder_with_a_plus_in_its_name_wins(models: Path, tmp_path: Path) -> None:
    named = Path(shutil.copytree(models / "two", tmp_path / "one+two"))
    assert terms_of(named) == ()
    uvmerge.interpolate(models / "base", named, tmp_path / "out", scale=1)
    with pytest.raises(UsageError, match=r"holds \* or \+"):
        uvmerge.merge_lora(models / "base", named, models / "one", tmp_path / "no")


@pytest.mark.parametrize(
    ("names", "scale", "error", "message"),
    [
        (["one", "dora"], None, InputRefused, "is a DoRA adapter, whose change of"),
        (["saved"], 0.5, InputRefused, "replaces lm_head.weight, which no scale but 1"),
        (["saved", "saved"], None, InputRefused, "replaces lm_head.weight, which another"),
        (["base"], None, InputRefused, "is no adapter"),
        (["one", "two"], "1/2/3", UsageError, "has 3 numbers for 2 adapters"),
        (["one"], "half", UsageError, "'half' is no number"),
        (["one"], "nan", UsageError, "'nan' is no number"),
        ([], None, UsageError, "ADAPTER or OUT is missing"),
    ],
)
def test_what_cannot_be_added_up_is_refused(
    names: list[str], scale: Any, error: type[Exception], message: str, models: Path, tmp_path: Path
) -> None:
    places = [models / name for name in names]
    options = {} if scale is None else {"scale": scale}
    with pytest.raises(error, match=message):
        uvmerge.merge_lora(models / "base", *places, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_output_may_not_lie_in_one_of_the_adapters(models: Path) -> None:
    with pytest.raises(UsageError, match="lies inside the input"):
        uvmerge.merge_lora(models / "base", models / "one", models / "two", models / "one" / "out")


def test_options_that_these_commands_decide_are_no_options(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="emit: is not an option of merge_lora"):
        uvmerge.merge_lora(models / "base", models / "one", tmp_path / "out", emit="adapter")
    with pytest.raises(UsageError, match="lossy: is not an option of extract_lora"):
        uvmerge.extract_lora(models / "base", models / "one", tmp_path / "out", lossy=True)
    with pytest.raises(UsageError, match="--rank and --error: cannot be given together"):
        uvmerge.extract_lora(models / "base", models / "one", tmp_path / "out", rank=1, error=0.5)


def test_an_extracted_adapter_of_an_adapter_is_that_adapter(models: Path, tmp_path: Path) -> None:
    base, lora = models / "base", models / "two"
    found = uvmerge.extract_lora(base, lora, tmp_path / "out", error=1e-4)
    assert found.adapter["rank"] == [3, 3] and found.adapter["left_out"] == []
    assert found.adapter["finetuning_error_in_all"] < 1e-4
