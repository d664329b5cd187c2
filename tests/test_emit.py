"""An edit as a PEFT adapter: what PEFT computes with it, what it says it lacks, and how it is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import command
import faults
import hub_server
import hub_uploads
import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

import uvmerge
from uvmerge.errors import InputRefused, ProblemsFound, UsageError

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")  # PEFT's

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Pairs = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """By family, a float32 base and a fine-tuned checkpoint."""
    folder, made = tmp_path_factory.mktemp("pairs"), dict[str, tuple[Path, Path]]()

    def pair(family: str) -> tuple[Path, Path]:
        if family not in made:
            made[family] = zoo.pair(family, folder / family, dtype="float32")
        return made[family]

    return pair


@pytest.fixture(scope="module")
def matrices_alone(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pair that differs in the linear maps of its layers alone."""
    base, finetuned = pairs("llama")
    out = tmp_path_factory.mktemp("alone") / "finetuned"
    shutil.copytree(finetuned, out)
    for path in zoo.files(out):
        ours, theirs = load_file(base / path.name), load_file(path)
        kept = {n: theirs[n] if "proj" in n else ours[n] for n in theirs}
        save_file(kept, path, metadata={"format": "pt"})
    return base, out


def wrapped(model: Path, adapter: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(zoo.load(model)[0], str(adapter)).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([[1, 5, 17, 42, 80]])).logits
    return found


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    return found


def edited(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "uvmerge.json").read_text())["edited"]
    return found


EDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "restore": ("llama", {"rank": 3}),
    "restore of base values": ("llama", {"rank": 2, "values": "base", "alpha": 0.5}),
    "swap": ("llama", {"left": True, "rank": 3}),
    "project": ("llama", {"rank": 2}),
    "project to the left": ("gpt2", {"side": "left", "rank": 2}),
    "project to the right": ("llama", {"side": "right", "rank": 2}),
    "restore of maps stored (in, out)": ("gpt2", {"rank": 2}),
}


@pytest.mark.parametrize("name", EDITS)
def test_in_peft_an_adapter_gives_the_logits_of_the_full_edit(
    name: str, pairs: Pairs, tmp_path: Path
) -> None:
    family, options = EDITS[name]
    base, finetuned = pairs(family)
    operation = getattr(uvmerge, name.split()[0].replace("-", "_"))
    operation(base, finetuned, tmp_path / "full", **options)
    result = operation(base, finetuned, tmp_path / "adapter", emit="adapter", **options)
    full = logits(zoo.load(tmp_path / "full")[0])
    found = logits(wrapped(finetuned, tmp_path / "adapter"))
    assert (found - full).abs().max() < 1e-5
    assert (logits(zoo.load(finetuned)[0]) - full).abs().max() > 1e-3
    assert result.adapter["error"] < 1e-6 and result.adapter["left_out"] == []


def test_an_extracted_adapter_on_the_base_is_truncate(
    matrices_alone: tuple[Path, Path], tmp_path: Path
) -> None:
    base, finetuned = matrices_alone
    uvmerge.truncate(base, finetuned, tmp_path / "full", rank=4)
    uvmerge.extract_lora(base, finetuned, tmp_path / "adapter", rank=4)
    full = zoo.load(tmp_path / "full")[0]
    model = wrapped(base, tmp_path / "adapter")
    assert (logits(model) - logits(full)).abs().max() < 1e-5
    merged = dict(model.merge_and_unload(safe_merge=True).named_parameters())
    for name, weight in full.named_parameters():
        assert torch.allclose(merged[name], weight, rtol=0, atol=1e-6), name


def test_every_rank_is_said_every_scaling_is_1_and_the_values_are_split_evenly(
    pairs: Pairs, tmp_path: Path
) -> None:
    out = tmp_path / "adapter"
    uvmerge.extract_lora(*pairs("llama"), out, error=0.4)
    said, factors = config(out), load_file(out / WEIGHTS)
    ranks = {m: len(factors[f"base_model.model.{m}.lora_A.weight"]) for m in said["target_modules"]}
    assert len(set(ranks.values())) > 1 and len(factors) == 2 * len(ranks)
    assert said["r"] == said["lora_alpha"] == max(ranks.values())
    assert said["rank_pattern"] == {m: k for m, k in ranks.items() if k != said["r"]}
    assert said["alpha_pattern"] == said["rank_pattern"]
    model = wrapped(pairs("llama")[0], out)
    layers = [m for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    assert len(layers) == len(ranks) and {m.scaling["default"] for m in layers} == {1.0}
    A, B = (factors[f"base_model.model.{Q}.lora_{x}.weight"].double() for x in "AB")
    assert torch.allclose(A @ A.mT, B.mT @ B, atol=1e-5 * float(A.square().sum()))


# What vLLM's loader (vllm/lora/peft_helper.py) demands, and what it refuses; it reads no other key.
# vLLM itself is not run here.
VLLM_NEEDS = ("r", "lora_alpha", "target_modules")
VLLM_REFUSES: dict[str, Callable[[Any], bool]] = {
    "modules_to_save": bool, "use_dora": bool, "bias": lambda value: value != "none",
}  # fmt: skip


def test_the_config_holds_nothing_that_vllm_refuses(pairs: Pairs, tmp_path: Path) -> None:
    uvmerge.extract_lora(*pairs("llama"), tmp_path / "adapter", energy=0.8)
    said = config(tmp_path / "adapter")
    assert all(key in said for key in VLLM_NEEDS)
    assert not [key for key, refuses in VLLM_REFUSES.items() if refuses(said[key])]
    # One scaling for all modules, lora_alpha / r; no rank is above r, the one that is compared
    # with --max-lora-rank; a module is known by the last word of its name.
    assert said["lora_alpha"] / said["r"] == 1 and not said["use_rslora"]
    assert all(k <= said["r"] for k in said["rank_pattern"].values())
    assert isinstance(said["target_modules"], list)
    names = load_file(tmp_path / "adapter" / WEIGHTS)
    assert all(n.startswith("base_model.model.") and n.endswith(".weight") for n in names)


def test_an_edit_above_the_largest_rank_is_refused_with_the_error_of_each_tensor(
    pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("restore", *pairs("llama"), tmp_path / "out", "--rank", "3", "--emit", "adapter")
    done = command.uv(capsys, *words, "--adapter-rank", 4, "--quiet")
    assert done.code == 3 and "28 tensors to 1e-05" in done.err and "at rank 4)" in done.err
    assert "--lossy" in done.err and list(tmp_path.iterdir()) == []
    done = command.uv(capsys, *words, "--adapter-rank", 4, "--lossy", "--json", "--quiet")
    found = json.loads(done.out)
    assert done.code == 0 and found["adapter"]["rank"] == [4, 4]
    assert 0.2 < found["adapter"]["error"] < 0.7
    assert all(entry["rank"] == 4 and entry["error"] > 0 for entry in found["edits"].values())


def test_norms_and_unselected_tensors_are_refused_or_left_out_and_named(
    pairs: Pairs, tmp_path: Path
) -> None:
    base, finetuned = pairs("llama")
    with pytest.raises(InputRefused, match=r"of 11 tensors.*layernorm\.weight \(error 1, all of a"):
        uvmerge.truncate(base, finetuned, tmp_path / "out", rank=3, emit="adapter")
    found = uvmerge.extract_lora(base, finetuned, tmp_path / "out", rank=3).adapter
    assert found["matrices"] == 28 and len(found["left_out"]) == 11
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(found["left_out"])
    assert found["error"] < 1e-6 < found["error_in_all"]
    assert 0.1 < found["finetuning_error"] < found["finetuning_error_in_all"] < 1
    with pytest.raises(InputRefused, match="--emit adapter: the edit changes no weight"):
        uvmerge.interpolate(base, finetuned, tmp_path / "no", modules="norm", emit="adapter")


def test_the_errors_that_are_told_are_those_of_the_factors(pairs: Pairs, tmp_path: Path) -> None:
    base, finetuned = pairs("llama")
    uvmerge.extract_lora(base, finetuned, tmp_path / "out", rank=5)
    before, after = zoo.tensors(base), zoo.tensors(finetuned)
    factors = load_file(tmp_path / "out" / WEIGHTS)
    whole = missed = 0.0
    for module in config(tmp_path / "out")["target_modules"]:
        A, B = (factors[f"base_model.model.{module}.lora_{x}.weight"].double() for x in "AB")
        delta = after[f"{module}.weight"].double() - before[f"{module}.weight"].double()
        values = torch.linalg.svdvals(delta)
        best = float(values[5:].norm() / values.norm())
        assert edited(tmp_path / "out")[f"{module}.weight"]["finetuning_error"] == pytest.approx(
            best, rel=1e-2
        )
        missed += float((delta - B @ A).square().sum())
        whole += float(delta.square().sum())
    found = uvmerge.extract_lora(base, finetuned, tmp_path / "out", rank=5)
    assert found.was_there
    assert found.adapter["finetuning_error"] == pytest.approx((missed / whole) ** 0.5, rel=1e-2)


def test_embeddings_and_head_get_factors_on_request(pairs: Pairs, tmp_path: Path) -> None:
    base, finetuned = pairs("llama")
    out = tmp_path / "out"
    result = uvmerge.extract_lora(base, finetuned, out, rank=3, modules="embeddings,head")
    assert set(config(out)["target_modules"]) == {"model.embed_tokens", "lm_head"}
    assert result.adapter["error"] < 1e-6
    uvmerge.truncate(base, finetuned, tmp_path / "full", rank=3, modules="embeddings,head")
    full = zoo.tensors(tmp_path / "full")
    uvmerge.merge_lora(base, out, tmp_path / "merged")
    merged = zoo.tensors(tmp_path / "merged")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.allclose(full[name], merged[name], rtol=0, atol=1e-6), name


def test_tied_embeddings_and_experts_have_no_place(pairs: Pairs, tmp_path: Path) -> None:
    tied = uvmerge.extract_lora(*pairs("llama_tied"), tmp_path / "tied", rank=2, modules="all")
    assert "model.embed_tokens.weight" in tied.adapter["left_out"]
    moe = uvmerge.extract_lora(*pairs("mixtral"), tmp_path / "moe", rank=2)
    assert any("experts" in name for name in moe.adapter["left_out"])
    assert all("self_attn" in name for name in config(tmp_path / "moe")["target_modules"])


def test_an_error_that_is_allowed_makes_the_rank_small(pairs: Pairs, tmp_path: Path) -> None:
    options: dict[str, Any] = {"side": "left", "top": 0.5, "emit": "adapter"}
    exact = uvmerge.project(*pairs("llama"), tmp_path / "exact", **options)
    rough = uvmerge.project(*pairs("llama"), tmp_path / "rough", adapter_error=0.3, **options)
    assert rough.adapter["rank"][1] < exact.adapter["rank"][1]
    assert all(1e-3 < entry["error"] <= 0.3 for entry in rough.edits.values())


def test_factors_in_bfloat16_say_what_their_rounding_costs(pairs: Pairs, tmp_path: Path) -> None:
    options: dict[str, Any] = {"rank": 3, "emit": "adapter", "dtype": "bfloat16"}
    with pytest.raises(InputRefused, match=r"error 0.00\d+ at rank 6"):
        uvmerge.restore(*pairs("llama"), tmp_path / "out", **options)
    found = uvmerge.restore(*pairs("llama"), tmp_path / "out", adapter_error=0.02, **options)
    assert 1e-3 < found.adapter["error"] < 0.02
    values = load_file(tmp_path / "out" / WEIGHTS).values()
    assert {value.dtype for value in values} == {torch.bfloat16}


def test_an_edit_of_an_adapter_is_an_adapter_for_the_base(pairs: Pairs, tmp_path: Path) -> None:
    base, _ = pairs("llama")
    lora = adapters.make(base, tmp_path / "lora", target_modules=["q_proj", "down_proj"])
    uvmerge.restore(base, lora, tmp_path / "full", rank=2)
    out = tmp_path / "adapter"
    result = uvmerge.restore(base, lora, out, rank=2, emit="adapter")
    assert config(out)["base_model_name_or_path"] == "base" and result.adapter["left_out"] == []
    full = logits(zoo.load(tmp_path / "full")[0])
    assert (logits(wrapped(base, out)) - full).abs().max() < 1e-5
    with pytest.raises(UsageError, match="is an adapter: no model has its merged weights"):
        uvmerge.restore(
            base, lora, tmp_path / "no", rank=2, emit="adapter", adapter_for="finetuned"
        )


def test_equal_matrices_get_no_factors_and_an_edit_of_nothing_is_refused(
    matrices_alone: tuple[Path, Path], tmp_path: Path
) -> None:
    base, finetuned = matrices_alone
    uvmerge.extract_lora(base, finetuned, tmp_path / "out", rank=2, include=["*q_proj*"])
    assert len(config(tmp_path / "out")["target_modules"]) == 4
    with pytest.raises(InputRefused, match="no matrix differs from that of the base model"):
        uvmerge.extract_lora(base, base, tmp_path / "none", rank=2, force=True)
    with pytest.raises(InputRefused, match="no matrix differs from that of the fine-tuned model"):
        uvmerge.damp_intruders(base, finetuned, tmp_path / "none", emit="adapter")
    assert not (tmp_path / "none").exists()


def test_a_sweep_and_other_workers_write_the_same_bytes(pairs: Pairs, tmp_path: Path) -> None:
    base, finetuned = pairs("llama")
    uvmerge.sweep("restore", base, finetuned, tmp_path / "swept", rank=[2, 3], emit="adapter")
    for rank in (2, 3):
        one = tmp_path / f"one-{rank}"
        uvmerge.restore(base, finetuned, one, rank=rank, emit="adapter", workers=rank)
        swept = tmp_path / "swept" / f"rank-{rank}"
        for name in (WEIGHTS, CONFIG):
            assert (one / name).read_bytes() == (swept / name).read_bytes(), name
        assert edited(one) == edited(swept)


def test_killed_before_any_call_that_changes_the_disk_an_adapter_is_finished(
    tmp_path: Path,
) -> None:
    base, finetuned, out = faults.pair(tmp_path, layers=1)
    words = ("--rank", "2", "--workers", "1", "--emit", "adapter", "--quiet")
    assert faults.uvmerge("restore", base, finetuned, out, *words).code == 0
    expected, log, call = faults.contents(out), tmp_path / "log", 0
    assert {CONFIG, WEIGHTS, "README.md", "uvmerge.json"} == expected.keys()
    while True:
        again = tmp_path / f"out-{call}"
        process = faults.start(
            faults.killed_child,
            log,
            call,
            tmp_path / "calls",
            "restore",
            base,
            finetuned,
            again,
            *words,
        )
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), log.read_text()
        assert not again.exists() or faults.contents(again) == expected
        assert faults.uvmerge("restore", base, finetuned, again, *words).code == 0
        # The card holds the name of the folder.
        found = faults.contents(again)
        assert {n for n in found if found[n] != expected[n]} <= {"README.md", "uvmerge.json"}
        assert faults.leftovers(again) == [again.name]
        if process.exitcode == 0:
            break
        call += 5
    assert call > 20


def test_check_knows_an_adapter(
    pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, finetuned = pairs("llama")
    out = tmp_path / "out"
    uvmerge.restore(base, finetuned, out, rank=2, emit="adapter")
    checked = uvmerge.check(out, against=finetuned)
    assert checked["fits"] == "28 modules of finetuned" and checked["for"] == "finetuned"
    with pytest.raises(UsageError, match="base is the base of this output"):
        uvmerge.check(out, against=base)
    with pytest.raises(UsageError, match="OUT is an adapter"):
        uvmerge.check(out, load=True)
    whole = bytearray((out / WEIGHTS).read_bytes())
    whole[-1] ^= 1
    (out / WEIGHTS).write_bytes(whole)
    with pytest.raises(ProblemsFound, match=r"adapter_model\.safetensors has other content"):
        uvmerge.check(out)
    (out / WEIGHTS).unlink()
    done = command.uv(capsys, "check", out)
    assert done.code == 4 and "adapter_model.safetensors is missing" in done.err


def test_the_card_is_that_of_an_adapter(pairs: Pairs, tmp_path: Path) -> None:
    base, finetuned = pairs("llama")
    uvmerge.restore(
        base, finetuned, tmp_path / "out", rank=2, emit="adapter", finetuned_id="org/sft",
        base_id="org/base",
    )  # fmt: skip
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model:\n- org/sft\nbase_model_relation: adapter\nlibrary_name: peft" in card
    assert "uvmerge merge-lora org/sft out out-merged" in card
    assert "--emit adapter --adapter-for finetuned --adapter-error 1e-05" in card
    assert config(tmp_path / "out")["base_model_name_or_path"] == "org/sft"
    assert str(tmp_path) not in "".join(
        path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors"
    )


def test_an_adapter_for_the_base_brings_the_tokenizer_of_the_finetuned_one(
    pairs: Pairs, tmp_path: Path
) -> None:
    base, finetuned = pairs("llama")
    shutil.copytree(finetuned, tmp_path / "sft")
    (tmp_path / "sft" / "tokenizer.json").write_text("{}")
    uvmerge.extract_lora(base, tmp_path / "sft", tmp_path / "a", rank=1)
    assert (tmp_path / "a" / "tokenizer.json").read_text() == "{}"
    uvmerge.restore(base, tmp_path / "sft", tmp_path / "b", rank=1, emit="adapter")
    assert sorted(os.listdir(tmp_path / "b")) == [
        "README.md", CONFIG, WEIGHTS, "uvmerge.json"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter_rank": 4}, "--adapter-rank: only counts with --emit adapter"),
        ({"lossy": True}, "--lossy: only counts with --emit adapter"),
        ({"emit": "adapter", "max_shard_size": "1GB"}, "--max-shard-size: does not go with"),
        ({"emit": "adapter", "report": "report"}, "--report: measures a checkpoint"),
        ({"emit": "lora"}, "--emit: 'lora' is not one of checkpoint, adapter"),
        ({"emit": "adapter", "adapter_rank": 0}, "--adapter-rank: '0' is outside"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, Any], message: str, pairs: Pairs, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        uvmerge.restore(*pairs("llama"), tmp_path / "out", rank=2, **options)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_the_ranks_may_be(
    pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("extract-lora", *pairs("llama"), tmp_path / "out", "--rank", "3", "--dry-run")
    done = command.uv(capsys, *words)
    assert done.code == 0 and not (tmp_path / "out").exists()
    assert (
        "factors of 28 matrices for an adapter of the base model, 11 tensors compared" in done.out
    )
    assert "factors, rank ≤ 30" in done.out and "compare" in done.out


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_adapter_is_pushed_and_made_again(
    pairs: Pairs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub_uploads.install(monkeypatch)
    base, finetuned = pairs("llama")
    with hub_server.serving({"org/base": base, "org/sft": finetuned}) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        uvmerge.extract_lora("org/base", "org/sft", tmp_path / "out", rank=2)
        said = config(tmp_path / "out")
        assert said["base_model_name_or_path"] == "org/base" and len(said["revision"]) == 40
        uvmerge.push(tmp_path / "out", "org/lora")
        card = b"".join(served.repositories["org/lora"].refs["main"].files["README.md"].pieces())
        assert b"base_model:\n- org/base\nbase_model_relation: adapter\n" in card
        hub_server.use(served, tmp_path / "second", monkeypatch)
        done = command.uv(capsys, "reproduce", "org/lora", tmp_path / "again", "--json")
        assert done.code == 0, done.err
        files = json.loads(done.out)["files"]
        assert files[WEIGHTS]["verdict"] == files[CONFIG]["verdict"] == "identical"


def test_of_a_composite_model_a_note_says_that_peft_may_not_find_the_modules(
    pairs: Pairs, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"rank": 2, "emit": "adapter", "dry_run": True}
    for family, is_told in (("llava", True), ("llama", False)):
        notes = uvmerge.restore(*pairs(family), tmp_path / "out", **options).plan.notes
        assert any("PEFT says that it does not find them" in note for note in notes) == is_told
