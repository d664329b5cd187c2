"""Tiny real transformers models, made on the spot from configs, and their fine-tuned twins.

Nothing is downloaded and nothing here uses uvmerge. Every tensor is seeded by its name (less any
"language_model."), so weights depend neither on the order of the tensors nor on how the files are
cut, and the text part of a multimodal model equals the text-only family under the same seed.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)  # the matrices are tiny: on a busy machine threads cost minutes

Tensors = dict[str, torch.Tensor]
Spec = tuple[str, list[int], bytes]  # safetensors dtype name, shape, raw bytes
Options = dict[str, Any]
Folder = str | Path

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 50_000  # cuts every family into at least three shards (bfloat16)
DECAY = 0.7  # the n-th singular value of every weight matrix is n**-DECAY times the first

SIZE: Options = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
SIZE |= {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
QWEN2 = SIZE | {"intermediate_size": 80, "num_key_value_heads": 2}  # q_proj, o_proj are square
TEXT = QWEN2 | {"head_dim": 16}  # 4 heads of 16 on a hidden size of 48: no matrix is square
MOE = TEXT | {"moe_intermediate_size": 40, "num_experts": 4, "num_experts_per_tok": 2}
LOCAL = TEXT | {"num_local_experts": 4, "num_experts_per_tok": 2}
SHARED: Options = {"shared_expert_intermediate_size": 56}
LLAMA4 = LOCAL | {"num_experts_per_tok": 1, "interleave_moe_layer_step": 1}
BERT = SIZE | {"intermediate_size": 80, "max_position_embeddings": 32}
UNTIED: Options = {"tie_word_embeddings": False}
GPT2 = {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_inner": 80, "n_positions": 32}
GPT2 |= {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2}

TOWER: Options = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2}
TOWER |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
LLAVA: Options = {"vision_config": TOWER | {"model_type": "clip_vision_model"}}
LLAVA |= {"text_config": TEXT | UNTIED | {"model_type": "llama"}}
LLAVA |= {"image_token_index": 100, "vision_feature_layer": -1}
GEMMA3: Options = {"vision_config": TOWER | {"vision_use_head": False}, "text_config": TEXT}
GEMMA3 |= {"mm_tokens_per_image": 4, "image_token_index": 100}
GEMMA3 |= {"boi_token_index": 98, "eoi_token_index": 99}

IS_FIVE = int(version("transformers").partition(".")[0]) >= 5
ROPE = "rope_parameters" if IS_FIVE else "rope_scaling"
QWEN_IDS = {"vision_start_token_id": 97, "vision_end_token_id": 98, "image_token_id": 99}
QWEN_IDS |= {"video_token_id": 100}
TOWER2 = {"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2}
ROPE2: Options = {ROPE: {"rope_type": "default", "mrope_section": [2, 2, 2]}}
QWEN2_VL: Options = QWEN_IDS | {"vision_config": TOWER2 | {"patch_size": 4}}
QWEN2_VL |= {"text_config": QWEN2 | UNTIED | ROPE2}
TOWER3: Options = {"depth": 2, "hidden_size": 32, "intermediate_size": 56, "num_heads": 2}
TOWER3 |= {"patch_size": 4, "out_hidden_size": 48, "num_position_embeddings": 16}
ROPE3: Options = {ROPE: {"rope_type": "default", "mrope_section": [4, 2, 2]}}
QWEN3_VL: Options = QWEN_IDS | {"vision_config": TOWER3 | {"deepstack_visual_indexes": [0]}}
QWEN3_VL |= {"text_config": TEXT | UNTIED | ROPE3}

# name -> transformers' model class, its config class, the config's options
FAMILIES: dict[str, tuple[str, str, Options]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", TEXT | UNTIED),
    "llama_tied": ("LlamaForCausalLM", "LlamaConfig", TEXT | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", QWEN2 | UNTIED),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", TEXT | UNTIED),
    "mistral": ("MistralForCausalLM", "MistralConfig", TEXT | UNTIED),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", TEXT),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", TEXT),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", TEXT),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", TEXT | UNTIED),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "bert": ("BertForMaskedLM", "BertConfig", BERT),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", LOCAL | UNTIED),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        MOE | UNTIED | SHARED | {"head_dim": 12},
    ),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", MOE | UNTIED),
    "gpt_oss": ("GptOssForCausalLM", "GptOssConfig", LOCAL | UNTIED),
    "llama4": ("Llama4ForCausalLM", "Llama4TextConfig", LLAMA4 | UNTIED),
    # the text part of each of these is a family above: llama, gemma3, qwen2, qwen3
    "llava": ("LlavaForConditionalGeneration", "LlavaConfig", LLAVA | UNTIED),
    "gemma3_vision": ("Gemma3ForConditionalGeneration", "Gemma3Config", GEMMA3),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", "Qwen2VLConfig", QWEN2_VL | UNTIED),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", "Qwen3VLConfig", QWEN3_VL | UNTIED),
}


def make(
    family: str,
    folder: Folder,
    *,
    seed: int = 0,
    dtype: str = "bfloat16",
    shard_bytes: int | None = None,
) -> Path:
    """Save a seeded model of `family` in `folder` with save_pretrained."""
    transformers = _transformers()
    model_class, config_class, options = FAMILIES[family]
    if not hasattr(transformers, model_class):
        pytest.skip(f"transformers {transformers.__version__} has no {model_class}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**options))
    with torch.no_grad():
        for name, weight in model.named_parameters():  # tied ones come once
            if weight.ndim < 2 or name.endswith("bias"):  # norms near their 1 (Gemma: 0), biases
                weight += 0.05 * _randn(weight.shape, seed, name)
            else:
                weight.copy_(_decaying(weight.shape, seed, name))
    size = {} if shard_bytes is None else {"max_shard_size": shard_bytes}
    model.to(getattr(torch, dtype)).save_pretrained(folder, **size)
    return Path(folder)


def finetune(
    base_folder: Folder,
    folder: Folder,
    *,
    seed: int = 1,
    strength: float = 0.05,
    rank: int | None = None,
    dtype: str | None = None,
) -> Path:
    """Write a twin of `base_folder`, file by file, with every floating tensor perturbed.

    The perturbation has `strength` times the tensor's Frobenius norm. With `rank`, that of a matrix
    (each one of a stack) is of low rank plus a tenth of dense noise. `dtype` re-casts.
    """
    base, folder = Path(base_folder), _copy_side_files(base_folder, folder, dtype)
    for path in sorted(base.glob("*.safetensors")):
        changed = {}
        for name, weight in load_file(path).items():
            if weight.is_floating_point():
                to = weight.dtype if dtype is None else getattr(torch, dtype)
                delta = _perturbation(weight.float(), seed, name, rank)
                weight = (weight.float() + strength * delta).to(to)
            changed[name] = weight
        with safe_open(path, "pt") as file:
            save_file(changed, folder / path.name, metadata=file.metadata())
    if dtype is not None and (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text())
        index["metadata"]["total_size"] = sum(map(len, raw(folder).values()))
        (folder / INDEX).write_text(json.dumps(index, indent=2))
    return folder


def pair(family: str, folder: Folder, **options: Any) -> tuple[Path, Path]:
    """folder/base and folder/finetuned; options of `make`, and strength and rank of `finetune`.

    `seed` is the base's; the fine-tuned one takes the next.
    """
    tuning = {key: options.pop(key) for key in ("strength", "rank") if key in options}
    base = make(family, Path(folder) / "base", **options)
    seed = options.get("seed", 0) + 1
    return base, finetune(base, Path(folder) / "finetuned", seed=seed, **tuning)


def load(folder: Folder) -> tuple[Any, dict[str, Any]]:
    """The model in `folder` by its own class, and transformers' loading report."""
    config = json.loads((Path(folder) / "config.json").read_text())
    model_class = getattr(_transformers(), config["architectures"][0])
    model, report = model_class.from_pretrained(folder, dtype="auto", output_loading_info=True)
    return model.eval(), report


def logits(folder: Folder) -> torch.Tensor:
    """The model's float32 logits on one fixed short text."""
    model = load(folder)[0].float()
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=torch.tensor([[1, 5, 17, 42, 80]])).logits
    return result


def _transformers() -> Any:
    transformers = importlib.import_module("transformers")  # slow: only when a model is needed
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _randn(shape: tuple[int, ...], seed: int, name: str) -> torch.Tensor:
    key = f"{seed}:{name.replace('language_model.', '')}"
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


def _factors(shape: tuple[int, ...], seed: int, name: str, rank: int) -> list[torch.Tensor]:
    """Random left and right factors of a matrix or a stack; a convolution is (out, rest)."""
    *stack, rows, columns = shape if len(shape) < 4 else (shape[0], math.prod(shape[1:]))
    sizes = {"left": (*stack, rows, rank), "right": (*stack, columns, rank)}
    return [_randn(size, seed, f"{name}:{side}") for side, size in sizes.items()]


def _decaying(shape: tuple[int, ...], seed: int, name: str) -> torch.Tensor:
    """Random singular vectors, singular values falling as a power of their place."""
    rank = min(shape[-2:] if len(shape) < 4 else (shape[0], math.prod(shape[1:])))
    factors = _factors(shape, seed, name, rank)
    left, right = (torch.as_tensor(torch.linalg.qr(factor).Q) for factor in factors)
    values = torch.arange(1, rank + 1).pow(-DECAY)
    values *= torch.sqrt(left.shape[-2] / values.square().sum())  # entries ~ 1 / sqrt(columns)
    return ((left * values) @ right.mT).reshape(shape)


def _perturbation(weight: torch.Tensor, seed: int, name: str, rank: int | None) -> torch.Tensor:
    """Noise of the norm of `weight`, of low rank (and a little more) where asked."""
    delta = _randn(weight.shape, seed, name + ":delta")
    if rank is not None and weight.ndim >= 2:
        left, right = _factors(weight.shape, seed, name + ":delta", rank)
        low = (left @ right.mT).reshape(weight.shape)
        delta = low / low.norm() + 0.1 * delta / delta.norm()
    result: torch.Tensor = delta * (weight.norm() / delta.norm())
    return result


def rewrite(
    folder: Folder,
    out: Folder,
    change: Callable[[Tensors], Tensors] = dict,
    *,
    shard_bytes: int = 10**9,
) -> Path:
    """Write `change` of the tensors of `folder` in `out`, cut anew, with the side files."""
    out = _copy_side_files(folder, out)
    (out / INDEX).unlink(missing_ok=True)
    save_torch_state_dict(change(tensors(folder)), out, max_shard_size=shard_bytes)
    return out


EXPERT = re.compile(r"(.*\.)(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(w\d|\w+_proj)\.weight")
PARTS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}  # Mixtral's names, the others'


def fuse_experts(folder: Folder, out: Folder) -> Path:
    """Stack per-expert matrices as transformers 5 does in memory, under its names.

    The result is that of save_pretrained(..., save_original_format=False).
    """
    result: Tensors = {}
    layers: dict[str, dict[str, dict[int, torch.Tensor]]] = {}
    for name, tensor in tensors(folder).items():
        if match := EXPERT.fullmatch(name):
            layer = layers.setdefault(f"{match[1]}mlp.experts.", {})
            layer.setdefault(PARTS.get(match[3], match[3]), {})[int(match[2])] = tensor
        else:
            result[name.replace(".block_sparse_moe.", ".mlp.")] = tensor
    if not layers:
        raise ValueError(f"{folder} has no per-expert matrices")
    for prefix, layer in layers.items():
        stacks = {p: torch.stack([layer[p][i] for i in sorted(layer[p])]) for p in PARTS.values()}
        result[prefix + "gate_up_proj"] = torch.cat([stacks["gate_proj"], stacks["up_proj"]], 1)
        result[prefix + "down_proj"] = stacks["down_proj"]
    return rewrite(folder, out, lambda _: result)


def split_experts(folder: Folder, out: Folder) -> Path:
    """The inverse of `fuse_experts`, under the names of the family (by its config.json)."""
    family = json.loads((Path(folder) / "config.json").read_text())["model_type"]
    if family not in ("mixtral", "qwen2_moe", "qwen3_moe"):
        raise ValueError(f"{family} has no per-expert layout")
    gate, up, down = PARTS if family == "mixtral" else PARTS.values()
    result: Tensors = {}
    for name, tensor in tensors(folder).items():
        if family == "mixtral":
            name = name.replace(".mlp.", ".block_sparse_moe.")
        if tensor.ndim != 3:
            result[name] = tensor
            continue
        prefix, _, last = name.rpartition(".")
        parts = (gate, up) if last == "gate_up_proj" else (down,)
        for expert, matrix in enumerate(tensor):
            for part, weight in zip(parts, matrix.chunk(len(parts)), strict=True):
                result[f"{prefix}.{expert}.{part}.weight"] = weight.clone()
    return rewrite(folder, out, lambda _: result)


def _copy_side_files(folder: Folder, out: Folder, dtype: str | None = None) -> Path:
    """Copy all but the weights; `dtype`, if any, goes in config.json."""
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    path = Path(out) / "config.json"
    if dtype is not None and path.exists():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": dtype}, indent=2))
    return Path(out)


def files(folder: Folder) -> list[Path]:
    """The weight files of `folder`: those of its index, or the single one."""
    index = Path(folder) / INDEX
    if not index.exists():
        return [Path(folder) / SINGLE]
    names = set(json.loads(index.read_text())["weight_map"].values())
    return [Path(folder) / name for name in sorted(names)]


def tensors(folder: Folder) -> Tensors:
    """All the tensors of `folder`, by the safetensors library."""
    return {name: tensor for path in files(folder) for name, tensor in load_file(path).items()}


def header(path: Folder) -> tuple[dict[str, Any], bytes]:
    """The parsed header of a safetensors file (with __metadata__, if any) and its data."""
    content = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def raw(folder: Folder) -> dict[str, bytes]:
    """The bytes of each tensor of `folder`, read by hand."""
    result = {}
    for path in files(folder):
        entries, data = header(path)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            start, stop = entry["data_offsets"]
            result[name] = data[start:stop]
    return result


def write_safetensors(
    path: Folder, tensors: Mapping[str, Spec], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write tensors given as (dtype name, shape, bytes), unchecked."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        offsets = [len(data), len(data) + len(content)]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(entries).encode()
    return write_raw(path, text + b" " * (-len(text) % 8), data)


def write_raw(path: Folder, header: bytes, data: bytes, *, length: int | None = None) -> Path:
    """Write any header and data; `length` is the header length claimed, where not the true one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path
