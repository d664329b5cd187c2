"""Make a pair of Llama-shaped checkpoints of any size, as one file or several, for benchmarks.

    python benchmarks/synthetic.py FOLDER --layers 16 --hidden 2048 --mlp 8192

Weights are seeded noise; the fine-tuned twin differs from the base by 1 % of relative size. Only
one tensor is in memory at a time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from uvmerge import header


def tensors(
    layers: int, hidden: int, mlp: int, vocabulary: int
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Llama with grouped-query attention."""
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("model.embed_tokens.weight", (vocabulary, hidden))
    ]
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name, shape in {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (hidden // 4, hidden),
            "self_attn.v_proj": (hidden // 4, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (mlp, hidden),
            "mlp.up_proj": (mlp, hidden),
            "mlp.down_proj": (hidden, mlp),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            shapes.append((f"{prefix}.{name}.weight", shape))
    return [*shapes, ("model.norm.weight", (hidden,)), ("lm_head.weight", (vocabulary, hidden))]


def write_pair(
    folder: Path,
    layers: int,
    hidden: int,
    mlp: int,
    vocabulary: int = 32000,
    strength: float = 0.01,
) -> tuple[Path, Path]:
    """Write `folder/base` and `folder/finetuned` in bfloat16 and return both."""
    shapes = tensors(layers, hidden, mlp, vocabulary)
    section, entries = header.build([(n, "BF16", s) for n, s in shapes], {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 256,
        "vocab_size": vocabulary, "tie_word_embeddings": False,
    }  # fmt: skip
    folders = folder / "base", folder / "finetuned"
    files = []
    for place in folders:
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(config, indent=2))
        files.append((place / "model.safetensors").open("wb"))
        files[-1].write(section)
    for number, entry in enumerate(entries):
        generator = torch.Generator().manual_seed(number)
        base = torch.randn(entry.shape, generator=generator) / hidden**0.5
        moved = base + strength * torch.randn(entry.shape, generator=generator) / hidden**0.5
        for file, values in zip(files, (base, moved), strict=True):
            file.write(values.bfloat16().view(torch.uint8).numpy().data)
    for file in files:
        file.close()
    return folders


def parser(about: str) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    found = argparse.ArgumentParser(description=about)
    found.add_argument(
        "folder", type=Path, help="where to work; needs several times the checkpoint"
    )
    found.add_argument("--layers", type=int, default=16)
    found.add_argument("--hidden", type=int, default=2048)
    found.add_argument("--mlp", type=int, default=8192)
    return found


if __name__ == "__main__":
    options = parser(__doc__ or "").parse_args()
    write_pair(options.folder, options.layers, options.hidden, options.mlp)
