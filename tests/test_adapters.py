"""An adapter is accepted wherever a fine-tuned checkpoint is, with the bytes of PEFT's own merge."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import adapters
import command
import hub_server
import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

import uvmerge
from uvmerge.api.opening import open_checkpoint
from uvmerge.api.settings import OpenSettings
from uvmerge.checkpoint.folder import Checkpoint
from uvmerge.checkpoint.merged import KEPT_BYTES, MergedCheckpoint
from uvmerge.errors import InputRefused, RunFailed, UsageError
from uvmerge.models import adapters as merging

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")  # PEFT's

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
APART = ("mixtral", "qwen3_moe")  # in transformers 4, each expert is a module of its own
PATTERNS = {
    "rank_pattern": {"layers.1.self_attn.q_proj": 2, r"^model\.layers\.2\..*v_proj": 3},
    "alpha_pattern": {"k_proj": 5},
}
Q = "model.layers.0.self_attn.q_proj.weight"

# name -> the family, its dtype, the options of LoraConfig
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("llama", "float32", {"target_modules": LINEAR}),
    "plain in bfloat16": ("llama", "bfloat16", {"target_modules": LINEAR}),
    "stored in bfloat16": (
        "llama", "float16", {"target_modules": LINEAR, "dtype": torch.bfloat16}
    ),
    "rslora": ("llama", "float32", {"target_modules": LINEAR, "use_rslora": True}),
    "dora": ("llama", "float32", {"target_modules": LINEAR, "use_dora": True}),
    "dora in bfloat16": ("llama", "bfloat16", {"target_modules": LINEAR, "use_dora": True}),
    "patterns": ("llama", "float32", {"target_modules": LINEAR, **PATTERNS}),
    "modules to save": (
        "llama", "bfloat16",
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "mlp", "norm"]},
    ),
    "tied modules to save": (
        "llama_tied", "float32",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "embeddings": ("llama", "float32", {"target_modules": ["embed_tokens", "lm_head"]}),
    "embeddings with dora": (
        "llama", "float32", {"target_modules": ["embed_tokens"], "use_dora": True}
    ),
    "tied embeddings": ("llama_tied", "float32", {"target_modules": ["embed_tokens", "q_proj"]}),
    "tied head": ("llama_tied", "float32", {"target_modules": ["lm_head", "q_proj"]}),
    "tied embeddings and head": (
        "llama_tied", "float32", {"target_modules": ["embed_tokens", "lm_head"]}
    ),
    "tokens": ("llama", "bfloat16", {"target_modules": ["q_proj"], "trainable_token_indices": [9, 3]}),
    "tied tokens": (
        "llama_tied", "float32",
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 9]}},
    ),
    "fused experts, apart on disk": (
        "mixtral", "float32", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}
    ),
    "experts in bfloat16 with patterns": (
        "qwen3_moe", "bfloat16",
        {
            "target_modules": ["q_proj"], "target_parameters": [*EXPERTS, "mlp.gate.weight"],
            "rank_pattern": {"experts.down_proj": 2}, "alpha_pattern": {"experts.gate_up_proj": 9},
        },
    ),
    "one parameter of experts": (
        "mixtral", "float32", {"target_modules": [], "target_parameters": EXPERTS[1:]}
    ),
    "all linear of experts": ("qwen3_moe", "float32", {"target_modules": "all-linear"}),
    "experts stored (in, out)": (
        "gpt_oss", "float32", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}
    ),
    "experts of llama4": (
        "llama4", "float32",
        {
            "target_modules": ["q_proj"],
            "target_parameters": [name.replace("mlp", "feed_forward") for name in EXPERTS],
        },
    ),
    "maps stored (in, out)": (
        "gpt2", "float32", {"target_modules": ["c_attn", "c_proj"], "use_dora": True}
    ),
    "names with another prefix": ("llava", "float32", {"target_modules": ["q_proj"]}),
}  # fmt: skip

Bench = Callable[[str], tuple[Path, Path, Path]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """By the name of a variant: a base, an adapter of it, and PEFT's own merge of the two."""
    folder = tmp_path_factory.mktemp("adapters")
    made: dict[str, tuple[Path, Path, Path]] = {}

    def trio(name: str) -> tuple[Path, Path, Path]:
        if name not in made:
            family, dtype, options = VARIANTS[name]
            if not zoo.IS_FIVE and family in APART and "target_parameters" in options:
                pytest.skip("transformers 4 has a module for each expert")
            base = folder / f"{family}-{dtype}"
            if not base.exists():
                zoo.make(family, base, dtype=dtype, shard_bytes=2 * zoo.SHARD_BYTES)
            place = folder / name.replace(" ", "-")
            adapter = adapters.make(base, place / "adapter", **options)
            made[name] = base, adapter, adapters.merged(base, adapter, place / "merged")
        return made[name]

    return trio


@contextmanager
def opened(adapter: Path) -> Iterator[Checkpoint]:
    with open_checkpoint(adapter, OpenSettings()) as checkpoint:
        yield checkpoint


def content(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {
        tensor.name: bytes(checkpoint.read(tensor.file, tensor.offset, tensor.size_bytes))
        for tensor in checkpoint.tensors.values()
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_every_tensor_has_the_bits_of_pefts_own_merge(name: str, bench: Bench) -> None:
    base, adapter, merged = bench(name)
    with opened(adapter) as checkpoint:
        found, wanted, before = content(checkpoint), zoo.raw(merged), zoo.raw(base)
        assert found == wanted
        assert isinstance(checkpoint, MergedCheckpoint)
        assert checkpoint.headers == checkpoint.base.headers  # the layout is the base's
    changed = {tensor for tensor in found if found[tensor] != before[tensor]}
    assert changed, "the adapter does nothing: the test shows nothing"


def test_experts_that_are_fused_on_disk_are_merged_alike(bench: Bench, tmp_path: Path) -> None:
    base, adapter, merged = bench("fused experts, apart on disk")
    fused = zoo.fuse_experts(base, tmp_path / "fused")
    moved = adapters.copied(adapter, tmp_path / "adapter", base_model_name_or_path=str(fused))
    with opened(moved) as checkpoint:
        assert content(checkpoint) == zoo.raw(zoo.fuse_experts(merged, tmp_path / "wanted"))


def test_any_range_of_a_file_can_be_read(bench: Bench) -> None:
    _, adapter, merged = bench("plain")
    with opened(adapter) as checkpoint:
        for name, path in ((each.name, each) for each in zoo.files(merged)):
            whole = path.read_bytes()
            for start, size in (
                (0, len(whole)),
                (5, 999),
                (len(whole) - 7, 7),
                (2000, 40_000),
                (9, 0),
            ):
                assert checkpoint.read(name, start, size) == whole[start : start + size]


@pytest.mark.parametrize(
    "name", ["plain in bfloat16", "modules to save", "fused experts, apart on disk"]
)
def test_restore_writes_what_it_writes_of_the_merged_checkpoint(
    name: str, bench: Bench, tmp_path: Path
) -> None:
    base, adapter, merged = bench(name)
    ours = uvmerge.restore(base, adapter, tmp_path / "ours", top=0.2, quiet=True)
    uvmerge.restore(base, merged, tmp_path / "theirs", top=0.2, quiet=True)
    assert zoo.raw(tmp_path / "ours") == zoo.raw(tmp_path / "theirs")
    assert any(entry["changed"] for entry in ours.edits.values())
    for path in zoo.files(tmp_path / "theirs"):
        assert (tmp_path / "ours" / path.name).read_bytes() == path.read_bytes()
    uvmerge.check(tmp_path / "ours", against=adapter)
    again = uvmerge.restore(base, adapter, tmp_path / "ours", top=0.2, quiet=True)
    assert again.was_there


def test_a_command_takes_an_adapter_for_a_finetuned_checkpoint(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter, merged = bench("plain")
    for words in (
        ["reset-layers", base, "FT", "OUT", "--frac", "0.25"],
        ["truncate", base, "FT", "OUT", "--rank", "2"],
        ["sweep", "restore", base, "FT", "OUT", "--top", "0.1,0.3"],
        ["run", "restore-top20", "OUT", "--base", base, "--finetuned", "FT"],
        ["interpolate", base, "FT", "OUT", "--scale", "1"],
    ):
        outs = {}
        for kind, tuned in (("ours", adapter), ("theirs", merged)):
            out = tmp_path / f"{words[0]}-{kind}"
            outs[kind] = out
            said = command.uv(
                capsys, *(tuned if w == "FT" else out if w == "OUT" else w for w in words)
            )
            assert said.code == 0, said.err
            assert ("merged on the fly" in said.err) == (kind == "ours")
        found = [sorted(out.rglob("*.safetensors")) for out in outs.values()]
        assert found[0] and [p.name for p in found[0]] == [p.name for p in found[1]]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*found, strict=True))


def test_show_and_diff_see_the_merged_model(bench: Bench, tmp_path: Path) -> None:
    base, adapter, merged = bench("plain")
    ours, theirs = uvmerge.show(adapter), uvmerge.show(merged)
    assert ours["tensors"] == theirs["tensors"]
    figures = [uvmerge.diff(base, each, quiet=True) for each in (adapter, merged)]
    rows = [found.as_data()["checkpoints"][0] for found in figures]
    differing = {key for key in rows[0] if rows[0][key] != rows[1][key]}
    assert differing <= {"reference", "label", "notes", "files"}


def test_models_of_a_merge_may_be_adapters(bench: Bench, tmp_path: Path) -> None:
    base, adapter, merged = bench("plain")
    recipe = {"uvmerge": 1, "steps": [{"interpolate": {"scale": 0.5}}]}
    for kind, tuned in (("ours", adapter), ("theirs", merged)):
        uvmerge.run(recipe, tmp_path / kind, base=base, finetuned=tuned, quiet=True)
    assert zoo.raw(tmp_path / "ours") == zoo.raw(tmp_path / "theirs")


def test_the_manifest_names_adapter_base_and_peft(bench: Bench, tmp_path: Path) -> None:
    base, adapter, _ = bench("plain")
    uvmerge.restore(base, adapter, tmp_path / "out", top=0.1, quiet=True)
    said = json.loads((tmp_path / "out" / "uvmerge.json").read_text())["inputs"]["finetuned"]
    assert said["adapter_of"] == base.name and said["peft"] == peft.__version__
    assert {"adapter_config.json", "adapter_model.safetensors"} < said["files"].keys()


def test_another_alpha_is_another_input(bench: Bench, tmp_path: Path) -> None:
    base, adapter, _ = bench("plain")
    mine = adapters.copied(adapter, tmp_path / "adapter")
    uvmerge.restore(base, mine, tmp_path / "out", top=0.1, quiet=True)
    adapters.copied(adapter, tmp_path / "adapter", lora_alpha=7)
    with pytest.raises(InputRefused):  # the output is that of another adapter
        uvmerge.restore(base, mine, tmp_path / "out", top=0.1, quiet=True)


def test_side_files_are_the_bases_and_the_tokenizer_the_adapters(
    bench: Bench, tmp_path: Path
) -> None:
    base, adapter, _ = bench("plain")
    mine = adapters.copied(adapter, tmp_path / "adapter")
    (base / "vocab.json").write_text("{}")
    try:
        (mine / "tokenizer_config.json").write_text('{"of": "adapter"}')
        (mine / "optimizer.pt").write_bytes(b"state")
        uvmerge.restore(base, mine, tmp_path / "out", top=0.1, quiet=True)
    finally:
        (base / "vocab.json").unlink()
    out = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "tokenizer_config.json"} < out
    assert not out & {"vocab.json", "adapter_config.json", "adapter_model.safetensors"}
    assert (tmp_path / "out" / "config.json").read_bytes() == (base / "config.json").read_bytes()


# --- traps --------------------------------------------------------------------------------------


def test_over_a_base_without_data_peft_merges_nothing_and_says_nothing(bench: Bench) -> None:
    """Why `models/adapters.py` gives the module its weight first, and looks at every result."""
    base, adapter, _ = bench("plain")
    with torch.device("meta"):
        model: Any = torch.nn.Module()
        model.q_proj = torch.nn.Linear(48, 64, bias=False)
    wrapped = peft.PeftModel(model, peft.LoraConfig(target_modules=["q_proj"], r=4))
    factors = load_file(adapter / "adapter_model.safetensors")
    ends = ("lora_A.weight", "lora_B.weight")
    prefix = "base_model.model.model.layers.0.self_attn.q_proj."
    state = {f"base_model.model.q_proj.{end}": factors[prefix + end] for end in ends}
    with pytest.warns(UserWarning, match="is a no-op"):  # all that is said
        peft.set_peft_model_state_dict(wrapped, state)
    weight = zoo.tensors(base)[Q]
    wrapped.base_model.model.q_proj.base_layer.weight = torch.nn.Parameter(weight.clone())
    layer = wrapped.base_model.model.q_proj
    assert layer.lora_B["default"].weight.is_meta  # the values that were set are gone
    with pytest.raises(RunFailed, match="without data"):
        merging.refuse_no_data("q_proj", layer)


def test_a_merge_that_changes_nothing_is_an_error(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter, _ = bench("plain")
    monkeypatch.setattr("peft.tuners.lora.layer.Linear.merge", lambda self, **options: None)
    with pytest.raises(RunFailed, match=r"_proj: is as before .* although its B is not 0"):
        uvmerge.restore(base, adapter, tmp_path / "out", top=0.1, quiet=True, workers=1)
    assert not (tmp_path / "out").exists()


def test_an_adapter_whose_b_is_zero_leaves_the_base(bench: Bench, tmp_path: Path) -> None:
    base, adapter, _ = bench("plain")
    zero = adapters.copied(adapter, tmp_path / "adapter")
    path = zero / "adapter_model.safetensors"
    save_file({k: v * ("lora_A" in k) for k, v in load_file(path).items()}, path)
    with opened(zero) as checkpoint:
        assert content(checkpoint) == zoo.raw(base)


def test_a_factor_that_is_not_finite_is_an_error(bench: Bench, tmp_path: Path) -> None:
    base, adapter, _ = bench("plain")
    broken = adapters.copied(adapter, tmp_path / "adapter")
    path = broken / "adapter_model.safetensors"
    save_file({k: v * float("inf") for k, v in load_file(path).items()}, path)
    with pytest.raises(RunFailed, match="PEFT cannot merge the adapter adapter: NaNs detected"):
        uvmerge.restore(base, broken, tmp_path / "out", top=0.1, quiet=True, workers=1)


def test_an_adapter_that_changes_while_running_fails_the_run(bench: Bench, tmp_path: Path) -> None:
    _, adapter, _ = bench("plain")
    mine = adapters.copied(adapter, tmp_path / "adapter")
    with opened(mine) as checkpoint:
        assert checkpoint.changed_files() == []
        (mine / "adapter_config.json").write_text("{}")
        path = mine / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes())
        assert len(checkpoint.changed_files()) == 2


# --- which base ---------------------------------------------------------------------------------


def test_a_copy_of_the_base_is_the_base(bench: Bench, tmp_path: Path) -> None:
    base, adapter, _merged = bench("plain")
    copy = zoo.rewrite(base, tmp_path / "copy")  # in other files, too
    result = uvmerge.restore(copy, adapter, tmp_path / "out", top=0.1, quiet=True)
    assert not any("was trained on" in note for note in result.plan.notes)


def test_an_adapter_of_another_model_is_refused(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter, _ = bench("plain")
    other = zoo.finetune(base, tmp_path / "other")
    words = ("restore", other, adapter, tmp_path / "out", "--top", "0.1")
    said = command.uv(capsys, *words)
    assert said.code == 3 and "Traceback" not in said.err
    assert f"adapter: was trained on {base}, BASE is other" in said.err and "--force" in said.err
    forced = command.uv(capsys, *words, "--force")
    assert forced.code == 0 and "note: the adapter was trained on" in forced.err


def test_a_base_that_cannot_be_compared_is_warned_of(bench: Bench, tmp_path: Path) -> None:
    base, adapter, _ = bench("plain")
    moved = adapters.copied(adapter, tmp_path / "adapter", base_model_name_or_path="org/llama")
    notes = uvmerge.restore(base, moved, tmp_path / "out", top=0.1, quiet=True).plan.notes
    assert any("was trained on org/llama, BASE is llama-float32" in note for note in notes)
    with pytest.raises(InputRefused, match=r"is an adapter of org/llama, which is not found"):
        uvmerge.show(moved)


@pytest.mark.parametrize(
    ("family", "what"),
    [
        ("gpt2", r"changes 28 modules: model.layers.0.*, which gpt2 does not have"),
        ("mixtral", r"changes 12 modules: model.layers.0.mlp.*, which mixtral does not have"),
        ("qwen2", r"is for a weight of shape \[32, 48\], qwen2 has"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_anything_is_read(
    family: str, what: str, bench: Bench, tmp_path: Path
) -> None:
    _, adapter, _ = bench("plain")
    other = zoo.make(family, tmp_path / family, dtype="float32")
    moved = adapters.copied(adapter, tmp_path / "adapter", base_model_name_or_path=str(other))
    with pytest.raises(InputRefused, match=what):
        uvmerge.restore(other, moved, tmp_path / "out", top=0.1, quiet=True)


def test_a_copy_of_the_embeddings_is_not_merged_and_its_difference_is_said(
    bench: Bench, tmp_path: Path
) -> None:
    _, adapter, merged = bench("tied embeddings")
    mine = adapters.copied(adapter, tmp_path / "adapter")
    path = mine / "adapter_model.safetensors"
    values = load_file(path)
    with opened(mine) as checkpoint:
        assert not any("copy" in note for note in checkpoint.notes)
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    save_file(values | {name: values[name] + 1}, path)
    with opened(mine) as checkpoint:
        assert any("copy of model.embed_tokens.weight that differs" in n for n in checkpoint.notes)
        assert content(checkpoint) == zoo.raw(merged)


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"peft_type": "VERA"}, "the peft_type VERA"),
        ({"peft_type": "OFT"}, "the peft_type OFT"),
        ({"peft_type": None}, "the peft_type None"),
        ({"alora_invocation_tokens": [1, 2]}, r"aLoRA \(alora_invocation_tokens\)"),
        ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA"),
        ({"use_qalora": True}, "QA-LoRA"),
        ({"arrow_config": {"top_k": 2}}, "Arrow"),
        ({"layer_replication": [[0, 2]]}, "layer replication"),
        ({"lora_bias": True}, "a bias of B"),
        ({"bias": "all"}, "biases of its own"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa, which changes the base"),
        ({"use_magic": True}, "the unknown setting use_magic"),
        ({"r": 0}, "no usable r"),
        ({"r": "8"}, "no usable r"),
        ({"lora_alpha": None}, "no usable r and lora_alpha"),
        ({"rank_pattern": {"q": "a"}}, "no table of numbers"),
        ({"rank_pattern": {"(q": 4}}, "is not matched"),
        ({"rank_pattern": {"(a+)+$": 4}}, "repeats a group"),
        ({"modules_to_save": "lm_head"}, "no list of names"),
        ({"trainable_token_indices": [-1]}, "trainable_token_indices"),
        ({"r": 5}, "has rank 4, its config says 5"),
        ({"use_dora": True}, "lacks its magnitude"),
    ],
)
def test_what_is_not_merged_is_refused_by_name(
    changes: dict[str, Any], what: str, bench: Bench, tmp_path: Path
) -> None:
    base, adapter, _ = bench("plain")
    odd = adapters.copied(adapter, tmp_path / "adapter", **changes)
    with pytest.raises(InputRefused, match=what):
        uvmerge.restore(base, odd, tmp_path / "out", top=0.1, quiet=True)


def one_factor(values: zoo.Tensors) -> zoo.Tensors:
    return {
        name: value for name, value in values.items() if "0.self_attn.q_proj.lora_B" not in name
    }


def other_rank(values: zoo.Tensors) -> zoo.Tensors:
    return {
        n: v[:, :2].contiguous() if "0.self_attn.q_proj.lora_B" in n else v
        for n, v in values.items()
    }


def integers(values: zoo.Tensors) -> zoo.Tensors:
    return {name: value.int() for name, value in values.items()}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (one_factor, "without its other factor"),
        (other_rank, r"has factors of shapes \[4, 48\] and \[64, 2\]"),
        (integers, "which no LoRA has"),
        (
            lambda values: values | {"base_model.model.x.vera_lambda_b": torch.ones(3)},
            "no LoRA has",
        ),
        (lambda values: {}, "is an adapter without tensors"),
    ],
)
def test_an_inconsistent_adapter_is_refused(
    change: Callable[[zoo.Tensors], zoo.Tensors], what: str, bench: Bench, tmp_path: Path
) -> None:
    base, adapter, _ = bench("plain")
    odd = adapters.copied(adapter, tmp_path / "adapter")
    path = odd / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(InputRefused, match=what):
        uvmerge.restore(base, odd, tmp_path / "out", top=0.1, quiet=True)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"modules_to_save": ["lm_head"]}, "brings a lm_head of its own, which .* ties to"),
        ({"modules_to_save": ["embed_tokens"]}, "replaces .*embed_tokens.weight alone, which"),
    ],
)
def test_what_unties_a_tied_model_is_refused(
    options: dict[str, Any], what: str, bench: Bench, tmp_path: Path
) -> None:
    base, _, _ = bench("tied head")
    adapter = adapters.make(base, tmp_path / "adapter", target_modules=["q_proj"], **options)
    with pytest.raises(InputRefused, match=what):
        uvmerge.show(adapter)


def test_a_resized_vocabulary_is_refused(bench: Bench, tmp_path: Path) -> None:
    _base, adapter, _ = bench("modules to save")
    mine = adapters.copied(adapter, tmp_path / "adapter")
    path = mine / "adapter_model.safetensors"
    name = "base_model.model.lm_head.weight"
    save_file(
        {k: torch.cat([v, v[:1]]) if k == name else v for k, v in load_file(path).items()}, path
    )
    with pytest.raises(
        InputRefused, match=r"lm_head is for a weight of shape \[102, 48\](.|\n)*resized"
    ):
        uvmerge.show(mine)


def test_without_peft_an_adapter_says_what_to_install(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs peft\n  pip install 'uvmerge\[peft\]'"):
        uvmerge.show(bench("plain")[1])


def test_a_pickled_adapter_is_read_on_request_only(bench: Bench, tmp_path: Path) -> None:
    _base, adapter, merged = bench("plain")
    mine = adapters.copied(adapter, tmp_path / "adapter")
    path = mine / "adapter_model.safetensors"
    torch.save(load_file(path), mine / "adapter_model.bin")
    path.unlink()
    with pytest.raises(InputRefused, match=r"is a pickle(.|\n)*--allow-pickle reads it"):
        uvmerge.show(mine)
    with open_checkpoint(mine, OpenSettings(allow_pickle=True)) as checkpoint:
        assert content(checkpoint) == zoo.raw(merged)


def test_an_adapter_alone_is_no_model_to_run(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="is a PEFT adapter, not a model"):
        Checkpoint.open(bench("plain")[1])


# --- a LoRA inside of a checkpoint --------------------------------------------------------------


def inside(base: Path, adapter: Path, folder: Path, name: str = "default") -> Path:
    """A checkpoint that stores the adapter beside the weights of the base, in two files."""
    tensors = zoo.tensors(base)
    for key, value in load_file(adapter / "adapter_model.safetensors").items():
        module, part, *_ = key.removeprefix("base_model.model.").rsplit(".", 2)
        tensors[f"{module}.{part}.{name}.weight"] = value
        if f"{module}.weight" in tensors:
            tensors[f"{module}.base_layer.weight"] = tensors.pop(f"{module}.weight")
    zoo.rewrite(base, folder, lambda _: tensors, shard_bytes=100_000)
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    return folder


@pytest.mark.parametrize("variant", ["plain", "plain in bfloat16", "rslora", "patterns"])
def test_a_lora_inside_of_a_checkpoint_is_merged_on_request(
    variant: str, bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter, merged = bench(variant)
    both = inside(base, adapter, tmp_path / "both")
    with open_checkpoint(both, OpenSettings(merge_inner_adapters=True)) as checkpoint:
        assert content(checkpoint) == zoo.raw(merged)
    words = ("restore", base, both, tmp_path / "out", "--top", "0.2")
    refused = command.uv(capsys, *words)
    assert refused.code == 3 and "--merge-inner-adapters" in refused.err
    done = command.uv(capsys, *words, "--merge-inner-adapters")
    assert done.code == 0 and "a LoRA inside of both" in done.err
    uvmerge.restore(base, merged, tmp_path / "wanted", top=0.2, quiet=True)
    assert zoo.raw(tmp_path / "out") == zoo.raw(tmp_path / "wanted")
    uvmerge.check(tmp_path / "out", against=both, merge_inner_adapters=True)


def test_what_says_alpha_of_an_inner_lora(bench: Bench, tmp_path: Path) -> None:
    base, adapter, merged = bench("plain")
    both = inside(base, adapter, tmp_path / "both", name="vision")
    (both / "adapter_config.json").unlink()
    with pytest.raises(InputRefused, match=r"no adapter_config\.json or vision_lora"):
        uvmerge.show(both, merge_inner_adapters=True)
    path = both / "config.json"
    said = {"vision_lora": {"r": 4, "lora_alpha": 6, "dp": 0.0}}
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    with open_checkpoint(both, OpenSettings(merge_inner_adapters=True)) as checkpoint:
        assert content(checkpoint) == zoo.raw(merged)


def test_two_loras_inside_of_a_checkpoint_are_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    base, adapter, _ = bench("plain")
    both = inside(base, adapter, tmp_path / "both", name="vision")
    path = zoo.files(both)[0]
    save_file(load_file(path) | {"x.lora_A.speech.weight": torch.ones(4, 4)}, path)
    index = both / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["x.lora_A.speech.weight"] = path.name
    index.write_text(json.dumps(table))
    with pytest.raises(InputRefused, match="holds 2 LoRAs: speech, vision"):
        uvmerge.show(both, merge_inner_adapters=True)


# --- memory -------------------------------------------------------------------------------------

PEAK = """
import sys, torch, peft, transformers
from pathlib import Path
import uvmerge
uvmerge.check(sys.argv[4], against=sys.argv[5])  # imports all that a merge imports
uvmerge.interpolate(sys.argv[1], sys.argv[2], sys.argv[3], scale=0.5, workers=1, quiet=True)
fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(fields["VmHWM"].split()[0])
"""


@pytest.mark.slow
def test_a_merge_needs_the_adapter_and_three_copies_of_the_largest_tensor(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = bench("plain")
    model, config, options = zoo.FAMILIES["llama"]
    sizes = {"hidden_size": 1024, "intermediate_size": 16384, "num_hidden_layers": 2}
    monkeypatch.setitem(zoo.FAMILIES, "large", (model, config, options | sizes))
    monkeypatch.setattr(zoo, "_decaying", lambda shape, *_: torch.randn(shape))
    base = zoo.make("large", tmp_path / "base", dtype="bfloat16")
    adapter = adapters.make(base, tmp_path / "adapter", target_modules=LINEAR, r=16)
    merged = adapters.merged(base, adapter, tmp_path / "merged")
    peaks = [
        1024 * int(
            subprocess.run(
                [sys.executable, "-c", PEAK, str(base), str(tuned), str(tmp_path / f"out{number}"), str(small[2]), str(small[1])],
                capture_output=True, text=True, check=True,
            ).stdout.split()[-1]
        )
        for number, tuned in enumerate((adapter, merged))
    ]  # fmt: skip
    largest = 4 * 1024 * 16384
    own = (adapter / "adapter_model.safetensors").stat().st_size
    assert peaks[0] - peaks[1] <= own + 3 * largest + KEPT_BYTES


@pytest.mark.hub
@pytest.mark.parametrize("option", [{"top": 0.2}, {}], ids=["restore", "diff"])
def test_an_adapter_may_be_on_the_hub(
    option: dict[str, Any], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter, _ = bench("plain in bfloat16")
    named = adapters.copied(adapter, tmp_path / "named", base_model_name_or_path="org/base")
    with hub_server.serving({"org/base": base, "org/lora": named}) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        if option:
            uvmerge.restore("org/base", "org/lora", tmp_path / "out", quiet=True, **option)
            uvmerge.restore(base, adapter, tmp_path / "local", quiet=True, **option)
            assert zoo.raw(tmp_path / "out") == zoo.raw(tmp_path / "local")
        else:
            found = uvmerge.diff("org/base", "org/lora", rank=2)
            assert found.compared[0].entries
