"""Small models, and anchor files of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import uvmerge
from uvmerge.training import anchor_file

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


def build(
    path: Path,
    weights: Mapping[str, Tensor],
    k: int,
    dtype: torch.dtype = torch.float32,
    transposed: bool = False,
) -> Path:
    """Write an anchor file of the leading k singular vectors of the weights."""
    matrices, tensors = {}, {}
    for name, weight in sorted(weights.items()):
        rank, full = min(k, *weight.shape), k >= min(weight.shape)
        U, _, Vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        factors = [U[:, :rank].to(dtype), Vh[:rank].T.to(dtype)]
        if not full:
            tensors |= {f"{name}.{s}": f.contiguous() for s, f in zip("UV", factors)}
        stored = DTYPES[weight.dtype]
        matrices[name] = anchor_file.AnchoredMatrix(
            name=name,
            shape=tuple(weight.shape),
            k=rank,
            full=full,
            transposed=transposed,
            dtype=stored,
            content_hash=anchor_file.content_hash(weight, stored),
            factors_hash=_hash(factors if not full else []),
        )
    said = anchor_file.metadata(matrices, {"rank": k}, DTYPES[dtype], uvmerge.__version__)
    save_file(tensors, path, said)
    return path


def layer_matrices(model: nn.Module) -> dict[str, Tensor]:
    """The matrices inside the layers, by their name in a checkpoint."""
    named = model.named_parameters()
    return {n: p for n, p in named if ".layers." in n and p.ndim == 2}


def _hash(factors: list[Tensor]) -> str:
    import xxhash

    raw = b"".join(f.contiguous().view(torch.uint8).numpy().tobytes() for f in factors)
    return xxhash.xxh3_128_hexdigest(raw)


def llama(dtype: torch.dtype = torch.float32, **config: object) -> nn.Module:
    """A Llama of two layers, hidden 32, with 64 words."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    given = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**given, **config})).to(dtype)
