"""Models for the example configurations in `tests/mergekit`, and where the tools look for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import zoo
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models as kinds, pre_tokenizers

EXAMPLES = Path(__file__).parent / "mergekit"
DEPTH = 4
TUNED = ("chat", "code", "math")
# Models that see images, with as many connections to the tower as the released ones have.
WITH_IMAGES = ("see", "look")
_TOWER = zoo.TOWER3 | {"depth": 4, "deepstack_visual_indexes": [0, 1, 2]}
_OPTIONS = zoo.QWEN3_VL | zoo.UNTIED | {"vision_config": _TOWER}
zoo.FAMILIES["seeing"] = ("Qwen3VLForConditionalGeneration", "Qwen3VLConfig", _OPTIONS)
WITH_WORDS = {"words": ("<unk>", "<s>", "the", "cat", "sat"),
              "names": ("<unk>", "<s>", "the", "Ada", "Bo", "cat")}  # fmt: skip


def names() -> list[str]:
    """The examples, by the names of their files."""
    return sorted(path.stem for path in EXAMPLES.glob("*.yml"))


def make(folder: Path, tuned: Sequence[str] = TUNED, others: bool = False) -> Path:
    """Models in `folder`/models, in float32: a base, fine-tunes of it, and the others of the examples."""
    models = folder / "models"
    base = zoo.make("llama", models / "base", dtype="float32")
    for name in tuned:
        zoo.finetune(base, models / name, seed=1 + TUNED.index(name), strength=0.1)
    if others:
        see = zoo.make("seeing", models / "see", dtype="float32")
        zoo.finetune(see, models / "look", seed=5, strength=0.1)
        for seed, (name, tokens) in enumerate(WITH_WORDS.items(), 7):
            _with_tokens(zoo.finetune(base, models / name, seed=seed, strength=0.1), tokens)
    return folder


def _with_tokens(folder: Path, tokens: tuple[str, ...]) -> None:
    """Give a model a tokenizer of whole words, with a row for each of them."""
    made = Tokenizer(kinds.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token=tokens[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([AddedToken(t, special=True) for t in tokens[:2]])
    made.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": tokens[0],
        "bos_token": "<s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    path = folder / "model.safetensors"
    cut = {
        name: tensor[: len(tokens)].clone()
        if name in ("lm_head.weight", "model.embed_tokens.weight")
        else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(cut, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "vocab_size": len(tokens),
        "bos_token_id": 1,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model, in float64."""
    return {name: tensor.double() for name, tensor in zoo.tensors(folder).items()}
