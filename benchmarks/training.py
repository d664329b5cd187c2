"""What the penalty of an anchor adds to a training step, in CPU time and in memory.

    OMP_NUM_THREADS=1 python benchmarks/training.py [--rounds 60] [--hidden 128,512]

A Llama of four layers in float32 with random weights, 2,048 tokens a step, AdamW and clipping. In each
round one step is taken plain, one with the penalty's gradient as a trainer's callback adds it, and one
with the penalty in the loss, by autograd (A B C A B C …); CPU seconds of the process, not wall time. What
a way adds is the median over the rounds of the difference to the plain step of the same round, with
quartiles, in percent of the median plain step.

On a machine with other work the steps of 2,048 tokens vary by more than the penalty adds. What it adds does
not depend on tokens, so it is measured a second time on steps of 128 tokens, and put in relation to the
same plain step of 2,048. The bound is 2.5 × (2/3)·k/T; (2/3)·k/T is the share of the operations.

The anchor is built by `uvmerge.anchor_build` with its defaults. Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import about, table, write_result

import uvmerge
from uvmerge.training import RotationAnchor

TOKENS = 2048
LENGTH = 128  # tokens of a row
WORDS = 64
WAYS = ("plain", "callback", "autograd")


def llama(hidden: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=hidden,
        intermediate_size=hidden * 43 // 16,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def step(model: Any, optimiser: Any, anchor: RotationAnchor, way: str, tokens: int) -> float:
    """CPU seconds of one step."""
    ids = torch.randint(WORDS, (tokens // LENGTH, LENGTH))
    bound = anchor.bind(model)
    start = time.process_time()
    if way == "callback":
        anchor.add(bound)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    if way == "autograd":
        loss = loss + anchor.penalty(model)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    return time.process_time() - start


def taken(model: Any, anchor: RotationAnchor, rounds: int, tokens: int) -> dict[str, list[float]]:
    """CPU seconds of the steps of each way, taken in turn."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(-2, rounds):
        for way in WAYS:
            cpu_s = step(model, optimiser, anchor, way, tokens)
            if number >= 0:
                seconds[way].append(cpu_s)
    return seconds


def added(seconds: dict[str, list[float]], plain_s: float, way: str) -> dict[str, float]:
    """What a way adds, in percent of a plain step of `plain_s`: median and quartiles."""
    pairs = zip(seconds["plain"], seconds[way], strict=True)
    shares = statistics.quantiles((100 * (b - a) / plain_s for a, b in pairs), n=4)
    return {name: round(x, 2) for name, x in zip(("low", "median", "high"), shares, strict=True)}


def measured(hidden: int, rounds: int, folder: Path) -> dict[str, Any]:
    """The figures of one hidden size."""
    model = llama(hidden)
    model.save_pretrained(folder / "base")
    uvmerge.anchor_build(folder / "base", folder / "anchor.safetensors", quiet=True)
    anchor = RotationAnchor.load(folder / "anchor.safetensors")
    memory = [term.memory for term in anchor.bind(model).terms.values()]
    long, short = (taken(model, anchor, *each) for each in ((rounds, TOKENS), (4 * rounds, LENGTH)))
    plain_s = statistics.median(long["plain"])
    ranks = [matrix.k for matrix in anchor.file.matrices.values()]
    bound = 100 * (2 / 3) * max(ranks) / TOKENS
    return {
        "hidden": hidden,
        "k": max(ranks),
        "matrices": len(ranks),
        "rounds": rounds,
        "plain_cpu_s": round(plain_s, 4),
        **{f"{way}_percent": added(long, plain_s, way) for way in WAYS[1:]},
        **{f"{way}_percent_of_128_tokens": added(short, plain_s, way) for way in WAYS[1:]},
        "operations_percent": round(bound, 3),
        "bound_percent": round(2.5 * bound, 3),
        "weights_bytes": sum(p.nbytes for p in model.parameters()),
        "factors_bytes": sum(each[0] for each in memory),
        "start_bytes": sum(each[1] for each in memory),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60, help="of the smallest model")
    parser.add_argument("--hidden", default="128,512", help="hidden sizes, with commas")
    settings = parser.parse_args()
    sizes = [int(each) for each in settings.hidden.split(",")]
    results = []
    for hidden in sizes:
        rounds = max(5, settings.rounds * sizes[0] // hidden)
        with tempfile.TemporaryDirectory() as folder:
            results.append(measured(hidden, rounds, Path(folder)))
        print(results[-1], flush=True)
    header = ["hidden", "k", "step, CPU s", "bound %", "callback %", "autograd %", "the same, from"]
    header += ["steps of 128", "factors", "start"]
    rows = [
        [
            each["hidden"], each["k"], each["plain_cpu_s"], each["bound_percent"],
            *(each[f"{way}_percent"]["median"] for way in WAYS[1:]),
            *(each[f"{way}_percent_of_128_tokens"]["median"] for way in WAYS[1:]),
            each["factors_bytes"], each["start_bytes"],
        ]
        for each in results
    ]  # fmt: skip
    print(table([header, *rows]))
    threads = torch.get_num_threads()
    path = write_result(
        "training",
        {**about("uvmerge", "torch", "transformers"), "threads": threads, "sizes": results},
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
