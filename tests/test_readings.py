"""What is read of a model decides what is edited: stacks, ties, wrappers, depths, packed weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
import zoo
from faults import EMBED, HEAD, Tensors, done, failed

import uvmerge

VISION = "visual.blocks.{}.attn.qkv.weight"


def saved(folder: Path, tensors: Tensors, **config: Any) -> Path:
    """A Llama folder with these tensors, and other values in its config."""
    faults.write(folder, tensors)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def pair(tmp_path: Path, base: Tensors, tuned: Tensors, **config: Any) -> faults.Pair:
    folders = [
        saved(tmp_path / name, each, **config) for name, each in (("base", base), ("sft", tuned))
    ]
    return folders[0], folders[1], tmp_path / "out"


def moved(found: faults.Pair) -> set[str]:
    """Names of tensors of OUT that differ from the fine-tuned ones."""
    before, after = zoo.tensors(found[1]), zoo.tensors(found[2])
    return {name for name in after if not torch.equal(before[name], after[name])}


# --- stacks ------------------------------------------------------------------------------------


@pytest.fixture
def sighted(tmp_path: Path) -> faults.Pair:
    """Three text layers and two layers that see."""
    base = faults.tensors() | {VISION.format(i): torch.randn(24, 8) for i in range(2)}
    return pair(tmp_path, base, faults.tuned(base))


def test_by_default_vision_is_copied_and_that_is_said(sighted: faults.Pair) -> None:
    done(faults.restore(*sighted), "left as fine-tuned: visual.blocks (2 vision layers)", "--stack")
    assert moved(sighted) and not any("visual" in name for name in moved(sighted))


def test_a_stack_is_chosen_by_its_kind(sighted: faults.Pair) -> None:
    done(faults.restore(*sighted, "--stack", "vision"), "left as fine-tuned: model.layers (3 text")
    assert moved(sighted) == {VISION.format(i) for i in range(2)}


def test_layers_are_counted_in_the_stack_that_is_chosen(sighted: faults.Pair) -> None:
    done(faults.uvmerge("reset-layers", "--frac", "0.5", "--stack", "visual.blocks", *sighted))
    assert moved(sighted) == {VISION.format(0)}


def test_interpolation_moves_every_stack(sighted: faults.Pair) -> None:
    done(faults.uvmerge("interpolate", "--scale", "0", *sighted))
    for name, tensor in zoo.tensors(sighted[0]).items():
        assert torch.equal(zoo.tensors(sighted[2])[name], tensor), name


def test_a_stack_that_is_not_there_is_refused_with_those_that_are(sighted: faults.Pair) -> None:
    refused = faults.restore(*sighted, "--stack", "audio")
    failed(refused, "no stack 'audio'", "visual.blocks (2 vision layers)", code=3)


def test_what_is_no_matrix_in_a_layer_is_listed(tmp_path: Path) -> None:
    conv = {f"model.layers.{i}.mixer.conv1d.weight": torch.randn(8, 1, 4) for i in range(3)}
    base = faults.tensors() | conv
    found = pair(tmp_path, base, faults.tuned(base))
    done(faults.restore(*found), "left alone, not matrices: 3 tensors like"
         " model.layers.*.mixer.conv1d.weight (8 × 1 × 4)")  # fmt: skip
    shown = uvmerge.show(found[1])
    assert shown["left_alone"] == list(conv)


# --- ties --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "options"),
    [("interpolate", ("--scale", "0.5")), ("reset-layers", ("--also", "embeddings")),
     ("reset-layers", ("--also", "head")), ("restore", ("--modules", "embeddings", "--top", "0.5"))],
)  # fmt: skip
def test_what_is_tied_and_stored_twice_stays_equal(
    command: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    base = faults.tensors()
    del base[HEAD]
    tuned = faults.tuned(base)
    tuned[HEAD] = tuned[EMBED].clone()
    found = pair(tmp_path, base, tuned, tie_word_embeddings=True)
    done(faults.uvmerge(command, *options, *found), "one tensor under several names")
    out = zoo.tensors(found[2])
    assert torch.equal(out[EMBED], out[HEAD])
    assert {EMBED, HEAD} <= moved(found)


def test_an_untied_head_goes_to_the_embeddings_of_a_tied_base(tmp_path: Path) -> None:
    base = faults.tensors()
    del base[HEAD]
    tuned = faults.tuned(base)
    tuned[HEAD] = tuned[EMBED] + 1
    found = pair(tmp_path, base, tuned)
    done(faults.uvmerge("interpolate", "--scale", "0", *found), "base ties its head")
    assert torch.equal(zoo.tensors(found[2])[HEAD], base[EMBED])


# --- partners ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["interpolate", "lines", "reset-layers"])
def test_a_tensor_that_would_stay_among_others_that_move_is_refused(
    command: str, tmp_path: Path
) -> None:
    base = faults.tensors()
    extra = "model.layers.0.self_attn.q_norm.weight"
    tuned = faults.tuned(base) | {extra: torch.ones(16)}
    found = pair(tmp_path, base, tuned)
    failed(faults.uvmerge(command, *found), f"1 selected tensor: {extra}", "--force", code=3)
    assert not found[2].exists()
    done(
        faults.uvmerge(command, *found, "--force"),
        f"copied under --force, no counterpart in the base: 1 tensor: {extra}",
    )
    assert extra not in moved(found)


def test_a_tensor_without_a_partner_does_not_stop_what_leaves_it_alone(tmp_path: Path) -> None:
    base = faults.tensors()
    tuned = faults.tuned(base) | {"model.layers.0.self_attn.q_norm.weight": torch.ones(16)}
    found = pair(tmp_path, base, tuned)
    done(faults.restore(*found), "only in fine-tuned, copied")


def test_a_buffer_that_a_loader_makes_itself_stops_nothing(tmp_path: Path) -> None:
    base = faults.tensors()
    tuned = faults.tuned(base) | {"model.rotary_emb.inv_freq": torch.ones(8)}
    done(faults.uvmerge("interpolate", *pair(tmp_path, base, tuned)))


# --- wrappers and adapters ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod.", "module.", "module._orig_mod.", "_fsdp_wrapped_module."]
)
@pytest.mark.parametrize("shard_bytes", [None, 3000])
def test_names_of_wrappers_are_read_and_written_without_them(
    wrapper: str, shard_bytes: int | None, tmp_path: Path
) -> None:
    base = faults.tensors()
    plain = pair(tmp_path / "plain", base, faults.tuned(base))
    wrapped = {f"{wrapper}{name}": tensor for name, tensor in faults.tuned(base).items()}
    found = pair(tmp_path / "wrapped", base, wrapped)
    for each in (plain, found):
        done(uvmerge_restore(each, shard_bytes))
    assert {k: v.tolist() for k, v in zoo.tensors(found[2]).items()} == {
        k: v.tolist() for k, v in zoo.tensors(plain[2]).items()
    }
    uvmerge.check(found[2])


def uvmerge_restore(found: faults.Pair, shard_bytes: int | None) -> faults.Outcome:
    size = ("--max-shard-size", f"{shard_bytes}B") if shard_bytes else ()
    return faults.restore(*found, *size)


def test_a_wrapper_is_said(tmp_path: Path) -> None:
    base = faults.tensors()
    wrapped = {f"_orig_mod.{name}": tensor for name, tensor in faults.tuned(base).items()}
    done(faults.restore(*pair(tmp_path, base, wrapped)), "without _orig_mod. of torch.compile")


def test_an_adapter_inside_of_a_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    base = faults.tensors()
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    found = pair(tmp_path, base, faults.tuned(base) | {name: torch.ones(2, 16)})
    failed(
        faults.restore(*found), "holds a LoRA that is not merged", name, "merge_and_unload", code=3
    )


# --- depth -------------------------------------------------------------------------------------


@pytest.fixture
def pruned(tmp_path: Path) -> faults.Pair:
    """Six layers, of which the two in the middle were taken out before fine-tuning."""
    base = faults.tensors(layers=6)
    kept: Tensors = {}
    for name, tensor in base.items():
        layer = int(name.split(".")[2]) if ".layers." in name else None
        if layer is None or layer < 2:
            kept[name] = tensor
        elif layer > 3:
            kept[name.replace(f".{layer}.", f".{layer - 2}.")] = tensor
    folders = (
        saved(tmp_path / "base", base, num_hidden_layers=6),
        saved(tmp_path / "sft", faults.tuned(kept), num_hidden_layers=4),
    )
    return (*folders, tmp_path / "out")


@pytest.mark.parametrize("command", ["restore", "interpolate", "reset-layers", "diff"])
def test_another_depth_is_refused_with_the_layers_that_look_unrelated(
    command: str, pruned: faults.Pair
) -> None:
    words = pruned[:2] if command == "diff" else pruned
    refused = faults.uvmerge(command, *words)
    failed(refused, "6 layers in base (model.layers), 4 in fine-tuned", "layers 2, 3 look unrelated",
           "--layer-map", code=3)  # fmt: skip


def test_stacks_whose_names_end_alike_are_not_taken_for_each_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = {
        f"{stack}.{i}.mlp.up_proj.weight": torch.randn(8, 8)
        for stack, depth in (("encoder.model.layers", 2), ("decoder.model.layers", 4))
        for i in range(depth)
    }
    folders = (
        saved(tmp_path / "base", ours, num_hidden_layers=4),
        saved(tmp_path / "sft", faults.tuned(ours), num_hidden_layers=4),
    )
    done(faults.restore(*folders, tmp_path / "out"))


def test_a_layer_map_sets_layers_beside_those_that_they_were(pruned: faults.Pair) -> None:
    done(faults.uvmerge("interpolate", "--scale", "0", "--layer-map", "0-1:0-1,2-3:4-5", *pruned))
    base, out = zoo.tensors(pruned[0]), zoo.tensors(pruned[2])
    for name, tensor in out.items():
        there = name.replace(".2.", ".4.").replace(".3.", ".5.") if ".layers." in name else name
        assert torch.equal(tensor, base[there]), name
    found = uvmerge.diff(*pruned[:2], layer_map="0-1:0-1,2-3:4-5")
    assert found.verdict == "related"
    again = uvmerge.run(json.loads((pruned[2] / "uvmerge.json").read_text())["recipe"]
                        | {"base": str(pruned[0]), "finetuned": str(pruned[1])},
                        pruned[2].with_name("again"))  # fmt: skip
    assert again.out is not None and zoo.raw(again.out) == zoo.raw(pruned[2])


# --- packed weights ----------------------------------------------------------------------------


def packed(tensors: Tensors, name: str) -> Tensors:
    """The same with one matrix as codes and scales, as bitsandbytes stores it."""
    codes = torch.zeros(tensors[name].numel() // 2, 1, dtype=torch.uint8)
    return tensors | {name: codes, f"{name}.absmax": torch.ones(4)}


def test_packed_weights_are_refused_where_they_are_selected(tmp_path: Path) -> None:
    base = faults.tensors()
    name = faults.Q.format(1)
    found = pair(tmp_path, base, packed(faults.tuned(base), name))
    failed(faults.restore(*found), "is quantised", name, "Dequantise it first", code=3)
    done(faults.restore(*found, "--layers", "0,2"))
    assert not any(".1." in each for each in moved(found))


def test_a_stale_quantisation_config_is_a_note(tmp_path: Path) -> None:
    base = faults.tensors()
    config = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    found = pair(tmp_path, base, faults.tuned(base), **config)
    done(faults.restore(*found), "has a quantization_config (bitsandbytes), its weights are plain")
    assert (found[2] / "config.json").read_bytes() == (found[1] / "config.json").read_bytes()


# --- index -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [None, {"total_size": 3}])
def test_an_index_with_a_wrong_size_or_none_is_written_right(
    metadata: dict[str, int] | None, tmp_path: Path
) -> None:
    base = faults.tensors()
    found = pair(tmp_path, base, faults.tuned(base))
    done(faults.restore(*found, "--max-shard-size", "4KB"))
    index = found[2] / "model.safetensors.index.json"
    right = json.loads(index.read_text())
    wrong = {"weight_map": right["weight_map"]} | ({"metadata": metadata} if metadata else {})
    index.write_text(json.dumps(wrong))
    again = tmp_path / "again"
    done(faults.restore(found[0], found[2], again))
    assert json.loads((again / index.name).read_text()) == right


# --- relatedness -------------------------------------------------------------------------------


def test_relatedness_is_judged_matrix_by_matrix(tmp_path: Path) -> None:
    """One matrix that was made anew is a warning, whatever its size; most of them are a refusal."""
    base = faults.tensors()
    tuned = faults.tuned(base)
    tuned[faults.Q.format(0)] = 100 * torch.randn(16, 16)
    found = pair(tmp_path / "one", base, tuned)
    done(faults.restore(*found), f"warning: 1 sampled matrix: {faults.Q.format(0)} look unrelated")
    anew = {name: torch.randn_like(tensor) for name, tensor in tuned.items()}
    failed(faults.restore(*pair(tmp_path / "all", base, anew)), "look unrelated", "--force", code=3)


# --- spellings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"), [("gamma", "weight"), ("weight_g", "parametrizations.weight.original0")]
)
@pytest.mark.parametrize("older", ["base", "fine-tuned"])
def test_names_that_older_versions_spell_otherwise_are_aligned(
    old: str, new: str, older: str, tmp_path: Path
) -> None:
    name = "model.layers.{}.some_norm.{}"
    theirs, mine = (old, new) if older == "base" else (new, old)
    base, tuned = (
        faults.tensors() | {name.format(i, end): torch.full((16,), value) for i in range(3)}
        for end, value in ((theirs, 1.0), (mine, 2.0))
    )
    found = pair(tmp_path, base, tuned)
    done(
        faults.uvmerge("interpolate", "--scale", "0", *found), "names aligned", "(3 tensors alike)"
    )
    assert torch.equal(zoo.tensors(found[2])[name.format(1, mine)], torch.ones(16))


# --- filters and maps that miss --------------------------------------------------------------------


def test_a_glob_that_matches_no_name_is_said(tmp_path: Path) -> None:
    base = faults.tensors()
    found = pair(tmp_path, base, faults.tuned(base))
    done(
        faults.restore(*found, "--exclude", "q_proj"),
        "'q_proj' matches no tensor: a glob is for the whole name, like '*q_proj*'",
    )
    out = (found[0], found[1], tmp_path / "other")
    failed(faults.restore(*out, "--include", "q_proj"), "'*q_proj*' may", code=3)


def test_layers_that_one_stack_lacks_are_said(tmp_path: Path) -> None:
    base = faults.tensors(layers=3)
    deep = {n.replace("model.", "model.encoder.", 1): t for n, t in base.items() if "layers" in n}
    both = deep | {n: t for n, t in base.items() if "layers.2" not in n}
    found = pair(tmp_path, both, faults.tuned(both), num_hidden_layers=3)
    said = "model.layers (2 text layers) has none of the layers that were asked for"
    done(faults.restore(*found, "--layers", "2"), said)


def test_a_layer_map_is_for_the_stack_that_differs(tmp_path: Path) -> None:
    base = faults.tensors(layers=3)
    deep = {n.replace("model.", "model.encoder.", 1): t for n, t in base.items() if "layers" in n}
    cut = {n: t for n, t in base.items() if "layers.1" not in n and "layers.2" not in n}
    found = pair(tmp_path, deep | base, faults.tuned(deep | cut), num_hidden_layers=3)
    done(faults.restore(*found, "--layer-map", "0:2"))
    assert any("encoder.layers.2" in name for name in moved(found))


def test_other_models_of_other_depths_are_called_other_models(tmp_path: Path) -> None:
    folders = [
        saved(tmp_path / name, faults.tensors(layers=n), model_type=name, num_hidden_layers=n)
        for name, n in (("llama", 2), ("mistral", 3))
    ]
    said = "are models of two kinds: llama with 2 layers, mistral with 3"
    failed(faults.restore(*folders, tmp_path / "out"), said, code=3)


def test_weights_of_other_modules_are_said_to_be_left_alone(tmp_path: Path) -> None:
    base = faults.tensors()
    found = pair(tmp_path, base, faults.tuned(base))
    dense = found[1] / "2_Dense"
    dense.mkdir()
    (dense / "model.safetensors").write_bytes((found[1] / "model.safetensors").read_bytes())
    said = (
        "weights of other modules are copied, never edited or measured: 2_Dense/model.safetensors"
    )
    done(faults.restore(*found), said)
    assert (found[2] / "2_Dense" / "model.safetensors").is_file()
    assert said in faults.uvmerge("show", found[1]).out
    done(faults.uvmerge("diff", *found[:2]), said)
