"""Folders that are no checkpoint are called what they are; variants are read; side files go along."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import faults
import pytest
import torch
import zoo
from faults import done, failed
from safetensors.torch import save_file

import uvmerge

POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4943162336\n"
)


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    return faults.pair(tmp_path)


def without_weights(pair: faults.Pair) -> Path:
    """The fine-tuned folder of a pair, with its config alone."""
    for path in pair[1].glob("*.safetensors*"):
        path.unlink()
    return pair[1]


def nothing(folder: Path, *names: str) -> None:
    """Empty files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 64)


@pytest.mark.parametrize(
    ("names", "what", "do"),
    [
        (["pytorch_model_fsdp_0/__0_0.distcp"], "FSDP checkpoint", "accelerate merge-weights"),
        (["__0_0.distcp", ".metadata"], "FSDP checkpoint", "accelerate merge-weights"),
        (
            ["global_step500/x", "latest", "zero_to_fp32.py"],
            "DeepSpeed checkpoint",
            "zero_to_fp32.py",
        ),
        (
            ["checkpoint-500/x", "checkpoint-1000/x"],
            "2 folders: checkpoint-1000",
            "checkpoint-1000",
        ),
        (["model-q4.gguf"], "the format of llama.cpp", "gguf_file="),
        (["weights.npz"], "MLX's layout", "mlx_lm.convert --dequantize"),
        (["consolidated.safetensors", "params.json"], "consolidated weights", "weights_to_hf"),
        (["consolidated.00.pth"], "consolidated weights", "weights_to_hf"),
        (["tf_model.h5"], "TensorFlow or Flax", "from_tf=True"),
        (["adapter_config.json"], "PEFT adapter", "merge_and_unload"),
        (["model_index.json", "unet/x"], "pipeline of diffusers", "Name a subfolder"),
        (["other.safetensors"], "neither model.safetensors nor an index", "must be named"),
        ([], "holds no weights", "A model folder has"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_called_what_it_is(
    names: list[str], what: str, do: str, pair: faults.Pair
) -> None:
    nothing(without_weights(pair), *names)
    failed(faults.restore(*pair), what, do, code=3)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("text", [POINTER, "# xet version 0\nfilesize = 3\n"])
def test_a_pointer_in_the_place_of_a_file_is_called_one(
    name: str, text: str, pair: faults.Pair
) -> None:
    (pair[1] / name).write_text(text)
    failed(
        faults.restore(*pair), "pointer of", "git lfs pull" if "lfs" in text else "git-xet", code=3
    )


def test_a_byte_order_mark_is_tolerated(pair: faults.Pair) -> None:
    config = pair[1] / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    done(faults.restore(*pair))
    assert (pair[2] / "config.json").read_bytes() == config.read_bytes()


def test_a_variant_alone_is_read_under_its_plain_name(pair: faults.Pair, tmp_path: Path) -> None:
    done(faults.restore(*pair))
    for folder in pair[:2]:
        (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    out = tmp_path / "other"
    done(faults.restore(pair[0], pair[1], out), "the variant model.fp16.safetensors")
    assert zoo.raw(out) == zoo.raw(pair[2])
    assert sorted(p.name for p in out.glob("*.safetensors")) == ["model.safetensors"]


def test_two_variants_are_not_chosen_between(pair: faults.Pair) -> None:
    stored = pair[1] / "model.safetensors"
    shutil.copy(stored, pair[1] / "model.bf16.safetensors")
    stored.rename(pair[1] / "model.fp16.safetensors")
    failed(faults.restore(*pair), "neither model.safetensors nor an index", code=3)


# --- side files --------------------------------------------------------------------------------

COPIED = [
    "tokenizer.model.v3", "tekken.json", "qwen.tiktoken", "spk_dict.pt", "preprocessor_config.json",
    "merges.txt", "modeling_own.py", "LICENSE", "USE_POLICY.md", "sentence_bert_config.json",
    "1_Pooling/config.json", "chat_templates/tool.jinja", "vocab.bin",
]  # fmt: skip
LEFT = [
    "optimizer.pt", "adapter_model.safetensors", "pytorch_model.bin", "model-q4.gguf",
    "trainer_state.json", "rng_state_0.pth", "events.out.tfevents.1", "original/consolidated.00.pth",
    "consolidated.safetensors", ".gitattributes", "runs/x", "train_results.json",
]  # fmt: skip


def test_what_a_loader_may_need_is_copied_and_nothing_else(pair: faults.Pair) -> None:
    nothing(pair[1], *COPIED, *LEFT)
    outcome = faults.restore(*pair)
    done(outcome, "left behind: ", "optimizer.pt", "transformers would load it too")
    for name in COPIED:
        assert (pair[2] / name).read_bytes() == (pair[1] / name).read_bytes(), name
    assert not [name for name in LEFT if (pair[2] / name).exists()]
    assert uvmerge.check(pair[2])["tensors"] == 12


def test_modules_of_sentence_transformers_go_along_with_their_weights(pair: faults.Pair) -> None:
    modules = [{"idx": 0, "path": "", "type": "Transformer"}, {"idx": 1, "path": "2_Dense"},
               {"idx": 2, "path": "head", "type": "Dense"}]  # fmt: skip
    (pair[1] / "modules.json").write_text(json.dumps(modules))
    for folder in ("2_Dense", "head", "elsewhere"):
        nothing(pair[1], f"{folder}/config.json")
        save_file({"linear.weight": torch.ones(4, 4)}, pair[1] / folder / "model.safetensors")
    done(faults.restore(*pair))
    assert (pair[2] / "2_Dense" / "model.safetensors").exists()
    assert (pair[2] / "head" / "model.safetensors").exists()
    assert not (pair[2] / "elsewhere").exists()
    (pair[2] / "head" / "model.safetensors").unlink()
    with pytest.raises(uvmerge.ProblemsFound, match=r"head/model\.safetensors is missing"):
        uvmerge.check(pair[2])


def test_a_side_file_beyond_the_limit_stays_behind_and_is_said(
    pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvmerge.output.sidefiles.LARGEST_BYTES", 1000)
    (pair[1] / "huge.json").write_bytes(b"{" + b" " * 2000 + b"}")
    done(faults.restore(*pair), "huge.json (2 KB, more than 1 KB)")
    assert not (pair[2] / "huge.json").exists()


@pytest.mark.parametrize("spoil", [lambda d: "[3]", lambda d: '{"a": 1}', lambda d: "no JSON"])
def test_odd_modules_do_not_stop_a_run(spoil: Callable[[None], str], pair: faults.Pair) -> None:
    (pair[1] / "modules.json").write_text(spoil(None))
    done(faults.restore(*pair))
    assert (pair[2] / "modules.json").exists()
