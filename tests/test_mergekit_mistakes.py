"""Files of mergekit that are misspelt or contradict themselves: each is refused with its line and a hint,
and nothing is written."""

from __future__ import annotations

from pathlib import Path

import merging
import pytest

import uvmerge
from uvmerge.errors import RecipeError

TWO = "models:\n  - model: models/chat\n  - model: models/code\n"  # lines 1 to 3
SLERP = "merge_method: slerp\nbase_model: models/chat\n" + TWO + "parameters:\n  t: 0.5\n"
TIES = "merge_method: ties\nbase_model: models/base\n"
ONE = "      - {model: models/chat, layer_range: [0, 4]}\n"


def weighed(*weights: object) -> str:
    """`models:` with a weight for each of them, two lines for each, from line 2 on."""
    names = ("chat", "code", "math")
    each = (
        f"  - model: models/{n}\n    parameters: {{weight: {w}}}\n" for n, w in zip(names, weights)
    )
    return "models:\n" + "".join(each)


LINEAR = "merge_method: linear\n" + weighed(0.5, 0.5)  # lines 1 to 6
MISTAKES = [
    # what is misspelt, or stands where nothing reads it
    ("merge_metod: linear\nslices: []\n", 1, "'merge_method' is missing", "linear"),
    ("merge_method: liner\n" + TWO, 1, "'liner' is unknown", "Did you mean 'linear'?"),
    ("merge_method: ram\nbase_model: models/base\n" + TWO, 1, "'ram' is not supported", "ties"),
    (LINEAR + "dype: float32\n", 7, "unknown key 'dype'", "Did you mean 'dtype'?"),
    (LINEAR + "dtype: fp16\n", 7, "dtype 'fp16' is unknown", "float16"),
    (LINEAR + "dtype: auto\n", 7, "dtype 'auto' is unknown", "bfloat16"),
    (LINEAR + "dtype: float64\n", 7, "float64 is not supported", "out_dtype: float32"),
    (LINEAR + "int8_mask: true\n", 7, "unknown key 'int8_mask'", "under `parameters:`"),
    (LINEAR + "pad_to_multiple_of: 8\n", 7, "unknown key", "under `tokenizer:`"),
    (LINEAR + "out_path: x\n", 7, "unknown key 'out_path'", "Known: base_model"),
    (LINEAR + "parameters: {wieght: 1}\n", 7, "unknown parameter 'wieght'", "'weight'"),
    (LINEAR + "parameters: {dtype: float32}\n", 7, "unknown parameter 'dtype'", "top of the file"),
    ("merge_method: linear\nmodels:\n  - model: models/chat\n    weight: 1\n", 4,
     "unknown key 'weight'", "under `parameters:`"),
    ("merge_method: linear\nmodels:\n  - model: models/chat\n    revision: main\n", 4,
     "unknown key 'revision'", "@REVISION"),
    ("merge_method: linear\nmodels:\n  - model: models/chat\n    layer_range: [0, 2]\n", 4,
     "unknown key 'layer_range'", "`slices:`"),
    ("merge_method: linear\nslices:\n  - merge_method: slerp\n    sources:\n" + ONE, 3,
     "unknown key 'merge_method'", "One file has one method"),
    (LINEAR.replace("slerp", "x") + "tokenizer: {sorce: union}\n", 7, "unknown key 'sorce'", "'source'"),
    ("gate_mode: hidden\nexperts: []\n", 2, "mergekit-moe", "uvmerge"),
    # what contradicts itself
    (LINEAR + "slices: []\n", 7, "has both models and slices", "Keep one"),
    (LINEAR + "tokenizer: {}\ntokenizer_source: base\n", 8, "both tokenizer", "Keep"),
    ("merge_method: linear\nparameters: {weight: 1}\n", 1, "names no models", "models:"),
    ("merge_method: passthrough\nslices:\n  - sources:\n"
     "      - {model: models/chat, layer_range: [3, 1]}\n", 4, "[3, 1] is reversed", "layer_range: [0, 16]"),
    ("merge_method: passthrough\nslices:\n  - sources:\n"
     "      - {model: models/chat, layer_range: [2, 2]}\n", 4, "holds no layer", "layer_range"),
    ("merge_method: passthrough\nslices:\n  - sources:\n"
     "      - {model: models/chat, layer_range: [0, 40]}\n", 4, "beyond chat, which has 4 layers", "3"),
    ("merge_method: linear\nparameters: {weight: 1}\nslices:\n  - sources:\n" + ONE
     + "      - {model: models/code, layer_range: [0, 3]}\n", 6, "different numbers of layers", "length"),
    ("merge_method: linear\nmodels:\n  - model: models/chat\n    parameters: {weight: 1}\n"
     "  - model: models/chat\n    parameters: {weight: 2}\n", 5, "stands here twice", "one weight"),
    ("merge_method: linear\n" + weighed(1, -1), 2, "sum to 0", "normalize: false"),
    ("merge_method: nuslerp\n" + weighed(0.5, -0.5), 2, "sum to 0", "Change a weight."),
    ("merge_method: multislerp\nbase_model: models/base\n" + weighed(0.1, 0.2, -0.3), 3, "sum to 0",
     "normalize_weights: false"),
    (TIES.replace("ties", "dare_linear") + weighed(1, -1) + "parameters: {normalize: true}\n", 3,
     "sum to 0", "normalize: false"),
    ("merge_method: linear\n" + weighed("[1, 0]", "[1, 0]"), 2, "sum to 0", "normalize: false"),
    ("merge_method: linear\n" + TWO, 3, "weight has no value for models/chat", "Add `weight"),
    (SLERP.replace("  t: 0.5", "  t: []"), 7, "t has no values", "a number"),
    (SLERP.replace("  t: 0.5", "  t: half"), 7, "'half', which is not a number", "0.5"),
    (SLERP.replace("  t: 0.5", "  t: 1.5"), 7, "outside 0 to 1", ""),
    (SLERP.replace("  t: 0.5", "  t: [0.5, {value: 1}]"), 7, "mixes numbers and filters", "value"),
    (SLERP.replace("  t: 0.5", "  t: [{filter: self_atn, value: 1}, {value: 0}]"), 7,
     "'self_atn' matches no tensor", "Did you mean 'self_attn'?"),
    (SLERP.replace("  t: 0.5", "  t: [{value: 0}, {filter: mlp, value: 1}]"), 7,
     "nothing reaches this condition", "put it last"),
    (SLERP.replace("  t: 0.5", "  t:\n  - {filter: mlp, value: 1}\n  - {filter: mlp.up_proj, value: 0}"), 9,
     "nothing reaches this condition", "(m.yml:8) fits all names with 'mlp.up_proj'"),
    (SLERP.replace("  t: 0.5", "  t: [{filter: norm, value: 1}, {filter: norm, value: 0}]"), 7,
     "nothing reaches this condition", "put it behind"),
    (SLERP.replace("  t: 0.5", "  t: {filter: mlp}"), 7, "has no value", ""),
    (SLERP.replace("  t: 0.5", "  filter: mlp\n  t: 0.5"), 7, "unknown parameter 'filter'", "as a list"),
    (SLERP.replace("parameters:\n  t: 0.5\n", ""), 3, "t has no value", "`t"),
    (SLERP.replace("base_model: models/chat\n", ""), 2, "needs a base_model", "at the top"),
    (SLERP.replace("  - model: models/code", "  - model: models/code\n    parameters: {t: 0.3}"), 6,
     "t of models/code is never read", "of the file"),
    (SLERP.replace("base_model: models/chat", "base_model: models/base"), 3, "takes 2 models", "gets 3"),
    ("merge_method: slerp\nbase_model: models/base\nparameters: {t: 0.5}\nslices:\n  - sources:\n"
     + ONE + "      - {model: models/code, layer_range: [0, 4]}\n", 5, "no source of this slice", "layer_range"),
    ("merge_method: model_stock\nbase_model: models/base\nmodels:\n  - model: models/chat\n", 3,
     "at least 3 models", "Name more models"),
    ("merge_method: linear\nparameters: {weight: 1}\nmodules:\n  text_decodr:\n    models:\n"
     "      - model: models/chat\n", 4, "no module 'text_decodr'", "'text_decoder'"),
    ("merge_method: linear\nparameters: {weight: 1}\nmodules:\n  default:\n    models:\n"
     "      - model: models/chat\n  text_decoder:\n    models:\n      - model: models/code\n", 7,
     "text_decoder and default are the same layers, model.layers", "Keep one"),
    ("merge_method: linear\nmodels:\n  - model: models/chat\n  parameters: {weight: 1}\n", 4,
     "between the items of a list", "Indent it"),
    ("merge_method linear\n" + TWO, 2, "a key stands where a value is read", "a colon may be missing"),
    (LINEAR + "chat_template: chatlm\n", 7, "neither known nor a template", "chatml"),
    (LINEAR + "dtype: float32\ndtype: float16\n", 8, "'dtype' stands here twice", ""),
    (LINEAR + "tokenizer: {tokens: {x: {source: {kind: nil}}}}\n", 7, "kind is 'nil'", ""),
    (LINEAR + "tokenizer: {source: models/cod}\n", 7, "models/cod", "Did you mean 'models/code'?"),
    (LINEAR + "tokenizer: {source: unoin}\n", 7, "'unoin' is no model", "'union'"),
    (LINEAR + "tokenizer_source: models/codr\n", 7, "is no model of this run", "'models/code'"),
    (LINEAR + "tokenizer:\n  tokens:\n    cat:\n      source: models/math\n", 10,
     "'models/math' is no model", ""),
    (LINEAR + "---\n" + LINEAR, 7, "a second document begins here", "a file of its own"),
    ("merge_method: LINEAR\n" + TWO, 1, "'LINEAR' is unknown", "'linear'"),
    ("merge_method: passthrough\n" + TWO, 2, "passthrough takes 1 model,", "Leave models out"),
    ("merge_method: passthrough\nslices:\n  - sources:\n"
     "      - {model: models/chat, layer_range: [false, true]}\n", 4, "not two whole numbers", "[0, 16]"),
    (TIES + "models:\n  - model: models/base\n    parameters: {weight: 1}\n", 3,
     "none is named beside it", "- model: "),
    (TIES.replace("ties", "della") + weighed(1, 1) + "parameters:\n  density: 0.5\n  epsilon: 0.6\n", 10,
     "della: --epsilon: 0.6 is too much", "at most 0.5"),
    ("merge_method: multislerp\nbase_model: models/base\nmodels:\n  - model: models/base\n", 1,
     "has a base and no model", "Name models"),
    (TIES + weighed(1, 1) + "parameters: {density: 50}\n", 8, "density: '50.0' is outside", ""),
    (LINEAR + "x: &x 1\ndtype: *y\n", 8, "undefined alias", ""),
    (TIES + weighed(1, 1).replace("weight: 1", "weight: 1, density: 1.5"), 5, "outside 0 to 1", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merging.make(tmp_path_factory.mktemp("mistakes"), ("chat", "code", "math"))


def test_there_are_at_least_thirty_mistakes() -> None:
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize(("text", "line", "what", "hint"), MISTAKES)
def test_a_mistake_is_refused_with_its_line_and_a_hint(
    text: str, line: int, what: str, hint: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "m.yml").write_text(text)
    with pytest.raises(RecipeError) as raised:
        uvmerge.run("m.yml", "out", quiet=True)
    error = raised.value
    assert what in error.what and (error.do or not hint), str(error)
    assert hint in f"{error.what} {error.do}", str(error)
    assert error.where == (f"m.yml:{line}" if line else "m.yml"), str(error)
    assert error.exit_code == 2 and not [p for p in folder.iterdir() if p.name.startswith("out")]
