"""Make pairs of checkpoints of any size for benchmarks; one tensor is in memory at a time.

    python benchmarks/synthetic.py FOLDER [--size 0.5b|7b] [--layers 6] [--strength 0.01]

writes `FOLDER/base` and `FOLDER/finetuned` in bfloat16 with the shapes of Qwen2.5 and with spectra
like those of trained weights (`matrix_pair`). `write_pair` makes Llama-shaped pairs of plain noise,
for benchmarks in which the values do not matter.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uvmerge.checkpoint import header

Pair = tuple[Tensor, Tensor]
Shape = tuple[int, ...]

SCALE = 0.02  # standard deviation of the bulk, as in trained models of this size
DECAY = 0.5  # a in sigma_i ~ i^-a, of the head of a weight and of the low-rank part of a delta
LOW_RANK_SHARE = 0.5  # of the delta's squared norm; the rest is noise


@dataclass(frozen=True)
class Architecture:
    """Shapes of a decoder with grouped-query attention."""

    model_type: str
    hidden: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    biases: bool  # of q, k and v
    tied: bool

    def tensors(self, layers: int) -> list[tuple[str, Shape]]:
        """Names and shapes, in the order of the file."""
        hidden, mlp = self.hidden, self.mlp
        kv = hidden // self.heads * self.kv_heads
        layer: dict[str, Shape] = {
            "self_attn.q_proj.weight": (hidden, hidden),
            "self_attn.k_proj.weight": (kv, hidden),
            "self_attn.v_proj.weight": (kv, hidden),
            "self_attn.o_proj.weight": (hidden, hidden),
            "mlp.gate_proj.weight": (mlp, hidden),
            "mlp.up_proj.weight": (mlp, hidden),
            "mlp.down_proj.weight": (hidden, mlp),
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
        }
        if self.biases:
            layer |= {f"self_attn.{x}_proj.bias": layer[f"self_attn.{x}_proj.weight"][:1] for x in "qkv"}  # fmt: skip
        embeddings = (self.vocabulary, hidden)
        found: list[tuple[str, Shape]] = [("model.embed_tokens.weight", embeddings)]
        for number in range(layers):
            found += [(f"model.layers.{number}.{name}", shape) for name, shape in layer.items()]
        found.append(("model.norm.weight", (hidden,)))
        return found if self.tied else [*found, ("lm_head.weight", embeddings)]

    def config(self, layers: int) -> dict[str, Any]:
        """A config.json that transformers can load."""
        name = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[self.model_type]
        return {
            "architectures": [name], "model_type": self.model_type, "dtype": "bfloat16",
            "hidden_size": self.hidden, "intermediate_size": self.mlp, "num_hidden_layers": layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary, "tie_word_embeddings": self.tied,
            "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip


# Qwen2.5, with a smaller vocabulary: the embeddings are copied, not edited.
SIZES = {
    "0.5b": Architecture("qwen2", 896, 14, 2, 4864, 10_000, biases=True, tied=True),
    "7b": Architecture("qwen2", 3584, 28, 4, 18_944, 10_000, biases=True, tied=False),
}


def llama(hidden: int, mlp: int, vocabulary: int) -> Architecture:
    """A Llama with heads of 64 and four query heads to a key."""
    return Architecture(
        "llama", hidden, hidden // 64, hidden // 256, mlp, vocabulary, biases=False, tied=False
    )


def matrix_pair(
    shape: tuple[int, int],
    seed: int,
    strength: float = 1e-2,
    rank: int = 32,
    device: torch.device | str = "cpu",
) -> Pair:
    """A weight matrix with a spectrum like a trained one, and its fine-tuned twin; float32.

    The base is a Marchenko-Pastur bulk under a head of r/10 (at least 32) outlying directions,
    which falls to the edge of the bulk as i^-a. The delta is low rank plus noise, `strength` times
    the norm of the base. Gaussian factors over the root of their length are orthonormal enough.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def noise(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device)

    def power_law(count: int) -> Tensor:  # (m, n), with singular values near (count / i)^a
        values = (count / torch.arange(1, count + 1, device=device)) ** DECAY
        left, right = noise(m, count) / m**0.5, noise(n, count) / n**0.5
        return (left * values) @ right.mT

    m, n = shape
    r = min(m, n)
    edge = SCALE * (m**0.5 + n**0.5)  # the largest singular value of the bulk
    base = (SCALE * noise(m, n)).add_(power_law(min(r, max(32, r // 10))), alpha=edge)
    low_rank, rest = power_law(min(rank, r)), noise(m, n)
    delta = low_rank.mul_((LOW_RANK_SHARE**0.5 / low_rank.norm()).item())
    delta.add_(rest, alpha=((1 - LOW_RANK_SHARE) ** 0.5 / rest.norm()).item())
    return base, base + delta.mul_((strength * base.norm() / delta.norm()).item())


def _trained(name: str, shape: Shape, seed: int, strength: float) -> Pair:
    if len(shape) == 2:
        return matrix_pair((shape[0], shape[1]), seed, strength)
    generator = torch.Generator().manual_seed(seed)
    base = 0.1 * torch.randn(shape, generator=generator) + (0.0 if name.endswith("bias") else 1.0)
    return base, base * (1 + strength * torch.randn(shape, generator=generator))


def write_trained_pair(
    folder: Path, size: str, layers: int, strength: float = 1e-2
) -> tuple[Path, Path]:
    """Write a pair with the shapes of `SIZES[size]` and spectra like trained weights."""
    return _write(
        folder, SIZES[size], layers, lambda name, shape, seed: _trained(name, shape, seed, strength)
    )


def write_pair(
    folder: Path,
    layers: int,
    hidden: int,
    mlp: int,
    vocabulary: int = 32000,
    strength: float = 0.01,
) -> tuple[Path, Path]:
    """Write a Llama-shaped pair of noise; the twin differs by `strength` of relative size."""

    def values(name: str, shape: Shape, seed: int) -> Pair:
        generator = torch.Generator().manual_seed(seed)
        base = torch.randn(shape, generator=generator) / hidden**0.5
        return base, base + strength * torch.randn(shape, generator=generator) / hidden**0.5

    return _write(folder, llama(hidden, mlp, vocabulary), layers, values)


def write_base(folder: Path, architecture: Architecture, layers: int) -> Path:
    """Write a base alone, whose layers have spectra like trained weights and the rest is zero."""
    shapes = architecture.tensors(layers)
    section, entries = header.build([(n, "BF16", s) for n, s in shapes], {"format": "pt"})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(architecture.config(layers), indent=2))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(section)
        for seed, entry in enumerate(entries):
            if ".layers." in entry.name and len(entry.shape) == 2:
                values, _ = matrix_pair((entry.shape[0], entry.shape[1]), seed)
                file.seek(entry.offset)
                file.write(values.bfloat16().view(torch.uint8).numpy().data)
        file.truncate(entries[-1].offset + entries[-1].size_bytes)
    return folder


def _write(
    folder: Path,
    architecture: Architecture,
    layers: int,
    values: Callable[[str, Shape, int], Pair],
) -> tuple[Path, Path]:
    """Write `folder/base` and `folder/finetuned` in bfloat16 and return both."""
    shapes = architecture.tensors(layers)
    section, entries = header.build([(n, "BF16", s) for n, s in shapes], {"format": "pt"})
    folders = folder / "base", folder / "finetuned"
    files = []
    for place in folders:
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(architecture.config(layers), indent=2))
        files.append((place / "model.safetensors").open("wb"))
        files[-1].write(section)
    for seed, entry in enumerate(entries):
        for file, tensor in zip(files, values(entry.name, entry.shape, seed), strict=True):
            file.write(tensor.bfloat16().view(torch.uint8).numpy().data)
    for file in files:
        file.close()
    return folders


def parser(about: str) -> argparse.ArgumentParser:
    """The options that the benchmarks on noise share."""
    found = argparse.ArgumentParser(description=about)
    found.add_argument(
        "folder", type=Path, help="where to work; needs several times the checkpoint"
    )
    found.add_argument("--layers", type=int, default=16)
    found.add_argument("--hidden", type=int, default=2048)
    found.add_argument("--mlp", type=int, default=8192)
    return found


def trained_parser(about: str) -> argparse.ArgumentParser:
    """The options that the benchmarks on spectra like trained weights share."""
    found = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument(
        "folder", type=Path, help="where to work; needs several times the checkpoint"
    )
    found.add_argument("--size", choices=sorted(SIZES), default="0.5b", help="shapes of Qwen2.5")
    found.add_argument("--layers", type=int, default=6)
    found.add_argument("--strength", type=float, default=1e-2, help="norm of the delta / base")
    return found


if __name__ == "__main__":
    options = trained_parser(__doc__ or "").parse_args()
    write_trained_pair(options.folder, options.size, options.layers, options.strength)
