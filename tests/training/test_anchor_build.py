"""`anchor build`: right factors, one file whole or not there, refusals, size and time ahead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import numpy as np
import pytest
import torch
from faults import DOWN, EMBED, HEAD, Q, done, failed

import uvmerge
from uvmerge.checkpoint import header
from uvmerge.engine.anchoring import Anchoring
from uvmerge.engine.settings import Control
from uvmerge.spectral.gram import Eigenpairs
from uvmerge.spectral.rank import energy_count
from uvmerge.training.anchor_file import AnchorFile, content_hash

KV, MLP = "model.layers.{}.self_attn.k_proj.weight", "model.layers.{}.mlp.up_proj.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return faults.write(tmp_path / "base", faults.tensors())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "anchor.safetensors"


def build(base: Path, out: Path, *options: object) -> faults.Outcome:
    return faults.uvmerge("anchor", "build", base, out, *options)


def projector(factor: torch.Tensor) -> Any:
    """What a factor spans, without the signs of its columns."""
    F = factor.double().numpy()
    return F @ F.T


def assert_leading(anchor: AnchorFile, name: str, W: torch.Tensor, k: int, error: float) -> None:
    """The factors of a matrix are its leading k singular vectors, up to `error`."""
    U, _, Vh = np.linalg.svd(W.double().numpy())
    found = anchor.factors(name)
    for factor, exact in zip(found, (U[:, :k], Vh[:k].T), strict=True):
        assert factor.shape == exact.shape
        assert np.abs(projector(factor) - exact @ exact.T).max() < error
    block = found[0].double().mT @ W.double() @ found[1].double()  # signs of U and V fit each other
    assert float((block - block.diagonal().diag()).abs().max()) < 20 * error
    assert bool((block.diagonal() > 0).all())


@pytest.mark.parametrize(("dtype", "error"), [("bf16", 2e-2), ("fp32", 1e-6)])
def test_factors_are_the_leading_singular_vectors_of_tall_and_wide_matrices(
    dtype: str, error: float, tmp_path: Path, out: Path
) -> None:
    weights = faults.tensors() | {
        KV.format(0): torch.randn(5, 16), MLP.format(0): torch.randn(40, 16)
    }  # fmt: skip
    base = faults.write(tmp_path / "base", weights)
    done(build(base, out, "--rank", "4", "--dtype", dtype), "8 matrices anchored")
    anchor = AnchorFile.open(out)
    for name in (Q.format(1), DOWN.format(2), KV.format(0), MLP.format(0)):
        assert_leading(anchor, name, weights[name], 4, error)
        assert anchor.matrices[name].content_hash == content_hash(weights[name], "F32")


def test_a_fifth_of_the_triplets_of_layer_matrices_is_the_default(base: Path, out: Path) -> None:
    done(build(base, out))
    anchor = AnchorFile.open(out)
    assert {m.k for m in anchor.matrices.values()} == {3} and anchor.selection == {"top": 0.2}
    assert all(name.startswith("model.layers.") for name in anchor.matrices)


def test_the_filters_choose_and_every_module_can_be_anchored(base: Path, out: Path) -> None:
    done(build(base, out, "--modules", "all", "--rank", "16", "--layers", "1,2"))
    done(build(base, out.with_name("all"), "--modules", "all", "--rank", "20"))
    anchor = AnchorFile.open(out.with_name("all"))
    assert [n for n in anchor.matrices if "layers" not in n] == [EMBED, HEAD]
    assert all(m.full and m.k == 16 for m in anchor.matrices.values())
    narrow = AnchorFile.open(out)
    assert list(narrow.matrices) == [n.format(i) for i in (1, 2) for n in (Q, DOWN)]
    assert narrow.selection == {"rank": 16, "layers": [1, 2], "modules": ["all"]}


def test_a_tied_head_that_is_stored_twice_is_anchored_once(tmp_path: Path, out: Path) -> None:
    weights = faults.tensors()
    weights[HEAD] = weights[EMBED].clone()
    config = faults.CONFIG | {"tie_word_embeddings": True}
    base = faults.write(tmp_path / "base", weights, config=config)
    done(build(base, out, "--modules", "all"), f"anchored once: 1 name: {HEAD}")
    assert HEAD not in AnchorFile.open(out).matrices


def test_a_conv1d_is_anchored_as_the_parameter_lies(tmp_path: Path, out: Path) -> None:
    weights = {"transformer.wte.weight": torch.randn(32, 16)}
    for i in range(2):
        weights[f"transformer.h.{i}.mlp.c_fc.weight"] = torch.randn(16, 24)
        weights[f"transformer.h.{i}.mlp.c_fc.bias"] = torch.randn(24)
    base = faults.write(tmp_path / "base", weights, config={"model_type": "gpt2", "n_layer": 2})
    done(build(base, out, "--rank", "4", "--dtype", "fp32"))
    anchor, name = AnchorFile.open(out), "transformer.h.1.mlp.c_fc.weight"
    assert anchor.matrices[name].shape == (16, 24) and anchor.matrices[name].transposed
    assert anchor.matrices[name].content_hash == content_hash(weights[name], "F32")
    assert_leading(anchor, name, weights[name], 4, 1e-6)


def test_several_matrices_in_one_tensor_are_left_out_and_named(tmp_path: Path, out: Path) -> None:
    weights = faults.tensors()
    for i in range(3):
        experts = f"model.layers.{i}.mlp.experts"
        weights[f"{experts}.gate_up_proj"] = torch.randn(4, 16, 24)
        weights[f"{experts}.down_proj"] = torch.randn(4, 12, 16)
    base = faults.write(tmp_path / "base", weights)
    done(build(base, out), "not anchored, several matrices in one tensor: 3 tensors like")
    assert all("experts" not in name for name in AnchorFile.open(out).matrices)
    failed(
        build(base, out.with_name("none"), "--include", "*experts*"),
        "every selected matrix shares its tensor with others", code=3,
    )  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--workers", "1")])
def test_energy_finds_each_rank_first(options: tuple[str, ...], base: Path, out: Path) -> None:
    done(build(base, out, "--energy", "60%", *options))
    for name, matrix in AnchorFile.open(out).matrices.items():
        values = torch.linalg.svdvals(faults.tensors()[name].double())
        assert matrix.k == energy_count(values, 0.6, max(matrix.shape))


def test_kept_decompositions_give_the_same_bytes_and_are_not_computed_again(
    base: Path, out: Path
) -> None:
    kept, again = out.with_name("kept"), out.with_name("again")
    factors = ("--energy", "0.6", "--factors", out.with_name("factors"))
    with mock.patch.object(Eigenpairs, "all_of", side_effect=Eigenpairs.all_of) as plain:
        done(build(base, out, "--energy", "0.6"))
    with mock.patch.object(Eigenpairs, "all_of", side_effect=Eigenpairs.all_of) as first:
        done(build(base, kept, *factors))
    with mock.patch.object(Eigenpairs, "all_of", side_effect=Eigenpairs.all_of) as second:
        done(build(base, again, *factors))
    assert out.read_bytes() == kept.read_bytes() == again.read_bytes()
    assert (plain.call_count, first.call_count, second.call_count) == (12, 6, 0)


def test_decompositions_that_a_restore_has_kept_are_used(base: Path, out: Path) -> None:
    kept = ("--factors", out.with_name("factors"))
    finetuned = faults.write(out.with_name("finetuned"), faults.tuned(faults.tensors()))
    done(faults.restore(base, finetuned, out.with_name("restored"), *kept))
    with mock.patch.object(Eigenpairs, "all_of", side_effect=Eigenpairs.all_of) as computed:
        done(build(base, out, "--top", "0.25", *kept))
    assert computed.call_count == 0


def test_the_fast_precision_is_another_file_with_nearly_the_same_factors(
    base: Path, out: Path
) -> None:
    done(build(base, out, "--rank", "4", "--dtype", "fp32", "--precision", "fast"))
    anchor = AnchorFile.open(out)
    assert anchor.made_with["precision"] == "fast"
    assert_leading(anchor, DOWN.format(0), faults.tensors()[DOWN.format(0)], 4, 1e-5)
    failed(build(base, out, "--rank", "4", "--dtype", "fp32"), "is there already", code=3)


def test_in_python_the_result_tells_ranks_bytes_and_whether_anything_was_written(
    base: Path, out: Path
) -> None:
    planned = uvmerge.anchor_build(base, out, top="20%", dry_run=True)
    assert planned.out is None and not out.exists()
    assert repr(planned).splitlines()[0] == "<Anchored a plan, nothing was written"
    made = uvmerge.anchor_build(base, out, layers="0-1", modules="mlp")
    assert made.ranks == {DOWN.format(0): 3, DOWN.format(1): 3}
    assert made.size_bytes == out.stat().st_size and not made.was_there
    assert "2 matrices anchored" in str(made) and str(out) in str(made)
    assert uvmerge.anchor_build(base, out, layers=[0, 1], modules=["mlp"]).was_there
    with pytest.raises(uvmerge.UsageError, match="is not an option"):
        uvmerge.anchor_build(base, out, nonsense=1)


def test_a_matrix_of_zeros_has_no_rank_and_is_left_out(tmp_path: Path, out: Path) -> None:
    weights = faults.tensors() | {Q.format(1): torch.zeros(16, 16)}
    base = faults.write(tmp_path / "base", weights)
    zero = f"all zero, not anchored: 1 matrix: {Q.format(1)}"
    done(build(base, out, "--energy", "0.5"), zero)
    anchor = AnchorFile.open(out)
    assert Q.format(1) not in anchor.matrices
    again = uvmerge.anchor_build(base, out, energy=0.5)
    assert again.was_there and again.ranks == {n: m.k for n, m in anchor.matrices.items()}
    assert again.size_bytes == out.stat().st_size
    made = uvmerge.anchor_build(base, out, energy=0.5, overwrite=True)
    assert made.plan.notes[-1] == zero and made.ranks == again.ranks
    alone = (out.with_name("alone"), "--energy", "0.5", "--include", Q.format(1))
    failed(build(base, *alone), f"every value is zero in 1 selected matrix: {Q.format(1)}", code=3)
    assert faults.leftovers(alone[0]) == []


# OUT: whole or not there


def test_the_same_command_again_writes_nothing(base: Path, out: Path) -> None:
    done(build(base, out, "--rank", "3"))
    before = faults.tree(out.parent)
    done(build(base, out, "--rank", "3"), "was there already: the whole file of this command")
    assert faults.tree(out.parent) == before
    failed(build(base, out, "--rank", "4"), "is there already", "--overwrite", code=3)
    done(build(base, out, "--rank", "4", "--overwrite"))
    assert AnchorFile.open(out).selection == {"rank": 4}
    assert faults.leftovers(out) == [out.name]


def test_the_anchor_of_another_base_is_not_taken_for_this_one(base: Path, out: Path) -> None:
    done(build(base, out))
    faults.write(base, faults.tuned(faults.tensors()))
    failed(build(base, out), "is there already", code=3)


def test_a_damaged_file_of_this_command_says_so_and_can_be_replaced(base: Path, out: Path) -> None:
    done(build(base, out))
    whole = out.read_bytes()
    out.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    failed(build(base, out), "is the file of this command, but not whole", code=3)
    out.write_bytes(whole[:-1])
    failed(build(base, out), "is there already", code=3)
    done(build(base, out, "--overwrite"))
    assert out.read_bytes() == whole


def test_a_file_of_others_is_never_replaced(base: Path, out: Path) -> None:
    out.write_text("a diary")
    for options in ((), ("--overwrite",)):
        assert build(base, out, *options).code == 3
    failed(build(base, out, "--overwrite"), "is no anchor file of uvmerge, and is not", code=3)
    assert out.read_text() == "a diary" and faults.leftovers(out) == [out.name]


def test_a_full_disk_is_told_and_the_build_resumes(base: Path, out: Path) -> None:
    done(build(base, out.with_name("undisturbed"), "--energy", "0.6"))
    for calls in (4, 12, 18):
        with faults.full_disk(after=calls):
            failed(
                build(base, out, "--energy", "0.6"),
                "the disk is full", "make room and run the same command again to resume", code=1,
            )  # fmt: skip
        assert not out.exists()
    done(build(base, out, "--energy", "0.6"))
    assert out.read_bytes() == out.with_name("undisturbed").read_bytes()
    assert faults.leftovers(out) == [out.name]


@pytest.mark.parametrize("options", [(), ("--energy", "0.6")])
def test_a_disk_that_is_too_small_is_found_before_the_factors(
    options: tuple[str, ...], base: Path, out: Path
) -> None:
    with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=1000)):
        failed(build(base, out, *options), "the output needs", "bytes short", code=3)


def killed_before(call: int, log: Path, *arguments: object) -> bool:
    process = faults.start(faults.killed_child, log, call, log.with_name("calls"), *arguments)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), log.read_text()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("options", [("--top", "0.25"), ("--energy", "0.6")])
def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(
    options: tuple[str, ...], base: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "undisturbed"
    done(build(base, whole, *options))
    log, call, kills = tmp_path / "log", 3, 0
    command = ("anchor", "build", base)
    while killed_before(call, log, *command, out := tmp_path / f"anchor-{call}", *options):
        assert not out.exists() or out.read_bytes() == whole.read_bytes()
        done(build(base, out, *options))
        assert out.read_bytes() == whole.read_bytes()
        assert faults.leftovers(out) == [out.name]
        call, kills = call + 8, kills + 1
    assert kills > 3
    last = int(log.with_name("calls").read_text())
    for call in range(last - 6, last, 2):  # around the rename to OUT
        out = tmp_path / f"late-{call}"
        assert killed_before(call, log, *command, out, *options)
        done(build(base, out, *options))
        assert out.read_bytes() == whole.read_bytes()
        assert faults.leftovers(out) == [out.name]


def test_what_a_stopped_build_had_finished_is_not_computed_again(base: Path, out: Path) -> None:
    control = Control()
    control.advance = lambda name, work: control.stop.set()
    with pytest.raises(uvmerge.Interrupted, match="stopped"):
        uvmerge.anchor_build(base, out, workers=1, control=control)
    assert not out.exists() and 0 < len(faults.pieces(out)) < 6
    finished = len(faults.pieces(out))
    with mock.patch.object(
        Anchoring, "_matrix", autospec=True, side_effect=Anchoring._matrix
    ) as made:
        uvmerge.anchor_build(base, out)
    assert made.call_count == 6 - finished
    uvmerge.anchor_build(base, out.with_name("undisturbed"))
    assert out.read_bytes() == out.with_name("undisturbed").read_bytes()


def test_an_unfinished_build_with_other_options_is_not_mixed_in(base: Path, out: Path) -> None:
    with faults.full_disk(after=12):
        assert build(base, out).code == 1
    failed(build(base, out, "--rank", "2"), "an unfinished run", "is in the way", code=3)
    done(build(base, out, "--rank", "2", "--overwrite"))
    assert AnchorFile.open(out).selection == {"rank": 2}
    assert faults.leftovers(out) == [out.name]


# Refusals


@pytest.mark.parametrize(
    ("options", "sentence", "code"),
    [
        (("--include", "*norm*"), "no matrix selected", 3),
        (("--modules", "router"), "nothing selected", 3),
        (("--layers", "7"), "the model has 3 layers", 3),
        (("--top", "0"), "--top: 0 anchors nothing", 2),
        (("--rank", "0"), "--rank: 0 anchors nothing", 2),
        (("--energy", "0"), "--energy: 0 anchors nothing", 2),
        (("--top", "0.1", "--rank", "3"), "cannot be given together", 2),
        (("--dtype", "float16"), "is not one of bfloat16, float32", 2),
        (("--layer-map", "0:0"), "is not an option", 2),
    ],
)
def test_what_selects_nothing_or_makes_no_sense_is_refused(
    options: tuple[str, ...], sentence: str, code: int, base: Path, out: Path
) -> None:
    failed(build(base, out, *options), sentence, code=code)
    assert faults.leftovers(out) == []


def test_a_rank_that_rounds_to_nothing_is_left_out_and_named(tmp_path: Path, out: Path) -> None:
    base = faults.write(tmp_path / "base", faults.tensors() | {KV.format(0): torch.randn(2, 16)})
    done(build(base, out), f"k = 0, not anchored: 1 matrix: {KV.format(0)}")


def test_a_quantised_base_is_refused_with_how_to_undo_it(tmp_path: Path, out: Path) -> None:
    codes = ("I32", [2, 16], bytes(128))
    specs = {n: faults.spec(t) for n, t in faults.tensors().items()}
    specs[Q.format(0).replace("weight", "qweight")] = codes
    config = faults.CONFIG | {"quantization_config": {"quant_method": "awq"}}
    base = faults.write(tmp_path / "base", specs, config=config)
    failed(build(base, out), "is quantised (method awq)", "Dequantise it first", code=3)


def test_other_bases_that_cannot_be_anchored_are_refused(tmp_path: Path, out: Path) -> None:
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model-q4.gguf").write_bytes(b"GGUF")
    failed(build(tmp_path / "gguf", out), "the format of llama.cpp", code=3)
    weights = faults.tensors() | {Q.format(2): torch.empty(0)}
    hollow = faults.write(tmp_path / "hollow", weights)
    failed(build(hollow, out), f"{Q.format(2)} hold no data", "gathering", code=3)
    weights = faults.tensors()
    weights[Q.format(2)][3, 4] = torch.nan
    damaged = faults.write(tmp_path / "damaged", weights)
    failed(build(damaged, out), f"{Q.format(2)}: NaN or Inf in the base", "--exclude", code=3)
    assert faults.leftovers(out) == []
    done(build(damaged, out, "--exclude", Q.format(2)))


def test_places_where_no_file_can_be_are_refused(base: Path, out: Path) -> None:
    out.mkdir()
    failed(build(base, out), "is a folder", "Name a file", code=2)
    link = out.with_name("link")
    link.symlink_to(out)
    failed(build(base, link), "is a link", code=2)
    failed(build(base, base / "anchor.safetensors"), "lies inside the input", code=2)
    failed(build(base, ""), "OUT: is empty", code=2)
    failed(build(base, out.with_name("x" * 250)), "is too long a name", code=2)
    failed(build(base, base / "config.json" / "x"), "lies inside the input", code=2)
    with mock.patch("os.access", return_value=False):
        failed(build(base, out.with_name("new")), "cannot be written", "read-only", code=2)
    assert sorted(p.name for p in out.parent.iterdir()) == ["anchor.safetensors", "base", "link"]


# Before a run


def test_a_dry_run_needs_no_torch_and_tells_the_size_to_the_byte(base: Path, out: Path) -> None:
    code = (
        "import sys; sys.argv = ['uvmerge', 'anchor', 'build', *sys.argv[1:]]\n"
        "from uvmerge.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as leave: assert not leave.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    words = [base, out, "--modules", "all", "--device", "cpu", "--dry-run", "--json"]
    told = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
    plan = json.loads(told.stdout)
    assert not out.exists() and plan["out"] is None and plan["estimated_cpu_s"] >= 0
    done(build(base, out, "--modules", "all", "--device", "cpu"))
    assert plan["bytes"] == out.stat().st_size
    assert plan["k"] == {n: m.k for n, m in AnchorFile.open(out).matrices.items()}
    table = done(build(base, out.with_name("new"), "--dry-run")).out
    assert "plan: 6 matrices of base anchored" in table
    assert "model.layers.*.self_attn.q_proj.weight  16 × 16  3" in table


def test_by_energy_a_dry_run_tells_the_most(base: Path, out: Path) -> None:
    told = done(build(base, out, "--energy", "1", "--dry-run")).out
    assert "writes at most" in told
    most = json.loads(done(build(base, out, "--energy", "1", "--dry-run", "--json")).out)["bytes"]
    done(build(base, out, "--energy", "0.9"))
    assert out.stat().st_size < most


def llama(folder: Path) -> Path:
    """A base of the shapes of Llama-3.1-8B, whose values take no room on the disk."""
    layer = {
        "self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (1024, 4096),
        "self_attn.v_proj": (1024, 4096), "self_attn.o_proj": (4096, 4096),
        "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096),
        "mlp.down_proj": (4096, 14336),
    }  # fmt: skip
    names = {f"model.layers.{i}.{n}.weight": s for i in range(32) for n, s in layer.items()}
    names |= dict.fromkeys((EMBED, HEAD), (128256, 4096))
    section, entries = header.build([(n, "BF16", s) for n, s in names.items()], {"format": "pt"})
    folder.mkdir()
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 32,
    }
    config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(section)
        os.truncate(file.fileno(), entries[-1].offset + entries[-1].size_bytes)
    return folder


@pytest.mark.parametrize(("modules", "billions"), [(["--modules", "all"], 4.43), ([], 4.03)])
def test_the_size_for_an_8b_model_is_known_from_headers(
    modules: list[str], billions: float, tmp_path: Path, out: Path
) -> None:
    base = llama(tmp_path / "base")
    started = time.process_time()
    options = (*modules, "--rank", "768", "--dtype", "bf16", "--dry-run", "--json")
    plan = json.loads(done(build(base, out, *options)).out)
    assert time.process_time() - started < 2
    assert plan["bytes"] == pytest.approx(billions * 1e9, rel=0.02)


# Looking at it


def test_show_lists_matrices_with_k_and_bytes(base: Path, out: Path) -> None:
    done(build(base, out, "--rank", "16", "--layers", "0,1", "--include", "*"))
    shown = done(faults.uvmerge("anchor", "show", out)).out
    assert "asked for: rank 16, layers [0, 1], include ['*']" in shown
    assert "model.layers.*.self_attn.q_proj.weight  16 × 16  16 (all)      2    0 B" in shown
    found = uvmerge.anchor_show(out)
    assert json.loads(done(faults.uvmerge("anchor", "show", out, "--json")).out) == found
    assert found["bytes"] == out.stat().st_size and "4 matrices" in repr(found)
    done(build(base, out, "--rank", "3", "--overwrite"))
    sizes = {m["name"]: m["bytes"] for m in uvmerge.anchor_show(out)["matrices"]}
    assert sizes[DOWN.format(0)] == 3 * (16 + 24) * 2
