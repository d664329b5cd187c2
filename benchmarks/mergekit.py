"""Every deterministic merge compared, value by value, with mergekit run as a process of its own.

    python benchmarks/mergekit.py FOLDER --peer PYTHON

PYTHON is the interpreter of an environment that has mergekit 0.1.5; uvmerge needs none of it. FOLDER
gets a tiny sharded Llama and three fine-tunes of it, in float32 and in bfloat16. Each method merges them
in both tools, and is computed a third time from its formula, in float64 and rounded once
(tests/merge_reference.py). The peer also runs with `dtype: float64`, where its own rounding is gone.

A unit is the distance of neighbouring numbers at the size of a value, or at its tensor's root mean
square if that is more; a small unit is the same with 1/256 of it. `chosen` counts values for which the peer keeps or elects something else:
where its change of the base differs by a quarter of that change and by more than two units. Writes
benchmarks/results/mergekit.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from measure import about, table, write_result
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

import uvmerge
from uvmerge.plan.layout import partition, shard_names

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
import merge_reference as formulas
from reference import nearest

Array: TypeAlias = NDArray[np.float64]
Arrays: TypeAlias = list[Array]

HIDDEN, MLP, VOCABULARY, LAYERS, KV = 96, 256, 1000, 3, 48
# How far each fine-tune moved, relative to the base: by slerp's measure on both sides of a straight line.
MOVED = {"a": 0.1, "b": 0.05, "c": 0.02}
PRECISIONS = {"float32": 24, "bfloat16": 8}  # bits of a significand

# What the peer's interpreter runs: every merge of one process, since its imports alone take seconds.
PEER = """
import json, sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for out, text in json.load(sys.stdin).items():
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(config, out, MergeOptions(quiet=True, copy_tokenizer=False, device="cpu"))
"""


@dataclass(frozen=True)
class Case:
    """A merge in both tools.

    Attributes:
        command: the method's name in uvmerge.
        formula: its result from the stored values of the checkpoints, in their order.
        models: the fine-tunes that take part.
        base: whether the base is named, and named first.
        weight: the weight of each fine-tune, where the method has weights.
        options: the other options.
        theirs: the same, as the peer spells them; those of `each` stand under each model.
    """

    command: str
    formula: Callable[[Arrays], Array]
    models: str = "abc"
    base: bool = True
    weight: tuple[float, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)
    each: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The command with its options: `ties --density 0.5`."""
        said = (f" --{name.replace('_', '-')} {value}" for name, value in self.options.items())
        return self.command + "".join(said)

    def configuration(self, folder: Path, dtype: str, out_dtype: str) -> str:
        """The merge as the peer reads it: JSON, which is YAML."""
        entries = []
        for letter, weight in zip(self.models, self.weight or (None,) * 3):
            own = {**self.each, **({} if weight is None else {"weight": weight})}
            entries.append({"model": str(folder / letter), "parameters": own})
        data: dict[str, Any] = {"merge_method": self.command.replace("-", "_"), "models": entries}
        data |= {"parameters": dict(self.theirs), "dtype": dtype, "out_dtype": out_dtype}
        if self.base or self.command == "slerp":  # the peer's slerp goes from its base
            data["base_model"] = str(folder / ("base" if self.base else self.models[0]))
        return json.dumps(data)

    def run(self, folder: Path, out: Path) -> None:
        """The merge in uvmerge."""
        names = ["base", *self.models] if self.base else list(self.models)
        weight = {"weight": self._weights} if self.weight else {}
        function = getattr(uvmerge, self.command.replace("-", "_"))
        function(*(folder / n for n in names), out, quiet=True, **self.options, **weight)

    @property
    def _weights(self) -> tuple[float, ...]:
        """One for each of `*models`, of which the base is one where differences are asked for."""
        return (1.0, *self.weight) if self.options.get("deltas") else self.weight


W2, W3, D3, HALF = (0.7, 0.3), (0.5, 0.3, 0.4), (0.5,) * 3, {"density": 0.5}
CASES = [
    Case("linear", lambda x: formulas.linear(x, W3), base=False, weight=W3),
    Case(
        "slerp", lambda x: formulas.slerp(*x, 0.3), models="ab", base=False,
        options={"t": 0.3}, theirs={"t": 0.3},
    ),
    Case("nuslerp", lambda x: formulas.nuslerp(*x, W2), models="ab", base=False, weight=W2),
    Case(
        "nuslerp", lambda x: formulas.nuslerp(*x, W2, "rows"), models="ab", base=False, weight=W2,
        options={"vectors": "rows"}, theirs={"nuslerp_flatten": False},
    ),
    Case(
        "nuslerp", lambda x: formulas.nuslerp(*x, W2, "columns"), models="ab", base=False, weight=W2,
        options={"vectors": "columns"},
        theirs={"nuslerp_flatten": False, "nuslerp_row_wise": True},
    ),
    Case(
        "nuslerp", lambda x: formulas.nuslerp(*x[1:], W2, base=x[0]), models="ab", weight=W2,
        options={"deltas": True},
    ),
    Case("multislerp", lambda x: formulas.multislerp(x, W3), base=False, weight=W3),
    Case(
        "multislerp", lambda x: formulas.multislerp(x[1:], W3, x[0]), weight=W3,
        options={"deltas": True},
    ),
    Case("karcher", lambda x: formulas.karcher(x), base=False),
    Case(
        "task-arithmetic", lambda x: formulas.task_arithmetic(x[0], x[1:], W3, 0.8), weight=W3,
        options={"scale": 0.8}, theirs={"lambda": 0.8},
    ),
    Case(
        "ties", lambda x: formulas.ties(x[0], x[1:], W3, D3), weight=W3, options=HALF, each=HALF
    ),
    Case(
        "breadcrumbs", lambda x: formulas.breadcrumbs(x[0], x[1:], W3, D3, (0.01,) * 3), weight=W3,
        options=HALF, each=HALF,
    ),
    Case(
        "breadcrumbs-ties",
        lambda x: formulas.breadcrumbs_ties(x[0], x[1:], W3, D3, (0.01,) * 3),
        weight=W3, options=HALF, each=HALF,
    ),
    Case("model-stock", lambda x: formulas.model_stock(x[0], x[1:])),
    Case(
        "model-stock", lambda x: formulas.model_stock(x[0], x[1:], True),
        options={"filter_wise": True}, theirs={"filter_wise": True},
    ),
    Case("sce", lambda x: formulas.sce(x[0], x[1:])),
    Case(
        "sce", lambda x: formulas.sce(x[0], x[1:], 0.3),
        options={"select_topk": 0.3}, theirs={"select_topk": 0.3},
    ),
    Case(
        "nearswap", lambda x: formulas.nearswap(*x, 0.002), models="a",
        options={"t": 0.002}, theirs={"t": 0.002},
    ),
    Case("passthrough", lambda x: x[0], models="a", base=False),
]  # fmt: skip


def write_models(folder: Path, dtype: str) -> None:
    """A base and its fine-tunes, each in three shards."""
    shapes = dict(_shapes())
    make = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=make) * 0.05 for name, shape in shapes.items()}
    for letter, moved in {"base": 0.0, **MOVED}.items():
        tensors = {
            name: (values + moved * 0.05 * torch.randn(values.shape, generator=make)).to(
                getattr(torch, dtype)
            )
            for name, values in base.items()
        }
        _write(folder / letter, tensors, dtype)


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        start = f"model.layers.{layer}"
        for name, rows, columns in (
            ("self_attn.q_proj", HIDDEN, HIDDEN), ("self_attn.k_proj", KV, HIDDEN),
            ("self_attn.v_proj", KV, HIDDEN), ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", MLP, HIDDEN), ("mlp.up_proj", MLP, HIDDEN),
            ("mlp.down_proj", HIDDEN, MLP),
        ):  # fmt: skip
            yield f"{start}.{name}.weight", (rows, columns)
        yield f"{start}.input_layernorm.weight", (HIDDEN,)
        yield f"{start}.post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def _write(folder: Path, tensors: Mapping[str, Tensor], dtype: str) -> None:
    folder.mkdir(parents=True)
    sizes = [values.nbytes for values in tensors.values()]
    groups, names, weight_map = partition(sizes, sum(sizes) // 2), list(tensors), {}
    for file, group in zip(shard_names(len(groups)), groups):
        save_file({names[i]: tensors[names[i]] for i in group}, folder / file, {"format": "pt"})
        weight_map |= {names[i]: file for i in group}
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": VOCABULARY, "tie_word_embeddings": False,
        "dtype": dtype,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def read(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def version(python: Path) -> dict[str, str]:
    """What the peer's environment holds."""
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in "
    code += "('mergekit', 'torch', 'transformers')}))"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@dataclass
class Tally:
    """Counts over all values of one merge in one dtype."""

    values: int = 0
    wrong: int = 0  # ours that are not the formula's, rounded once
    differ: int = 0  # the peer's that are not ours
    farther_small: int = 0  # of these by more than one small unit
    farther: int = 0  # of these by more than one unit
    farthest: float = 0.0  # in units
    chosen: int = 0  # of these by another choice
    differ_exactly: int = 0  # of the peer in float64
    farther_exactly: int = 0

    def add(
        self, ours: Tensor, peer: Tensor, precise: Tensor, expected: Array, base: Array
    ) -> None:
        """Count the values of one tensor, given in the output's dtype."""
        is_single = ours.dtype == torch.float32
        correct = expected.astype(np.float32) if is_single else nearest(expected)
        one, other, third = (each.double().numpy() for each in (ours, peer, precise))
        bits = PRECISIONS[str(ours.dtype).removeprefix("torch.")]
        unit, small = units(one, bits, 1), units(one, bits, 256)
        away = np.abs(other - one) / unit
        change, theirs = one - base, other - base
        apart = np.abs(theirs - change)
        quarter = 0.25 * np.maximum(np.abs(change), np.abs(theirs))
        self.values += ours.numel()
        self.wrong += int((one != correct).sum())
        self.differ += int((away > 0).sum())
        self.farther += int((away > 1).sum())
        self.farther_small += int((np.abs(other - one) > small).sum())
        self.farthest = max(self.farthest, float(away.max()))
        self.chosen += int(((apart > quarter) & (np.abs(other - one) > 2 * small)).sum())
        self.differ_exactly += int((third != one).sum())
        self.farther_exactly += int((np.abs(third - one) / unit > 1).sum())

    def as_data(self) -> dict[str, Any]:
        """The shares of values, in per cent."""
        share = {
            name: round(100 * getattr(self, name) / self.values, 4)
            for name in (
                "differ",
                "farther",
                "farther_small",
                "chosen",
                "differ_exactly",
                "farther_exactly",
            )
        }
        return {"values": self.values, "ours_wrong": self.wrong} | {
            "peer_differs_percent": share["differ"],
            "peer_farther_than_one_small_unit_percent": share["farther_small"],
            "peer_farther_than_one_unit_percent": share["farther"],
            "peer_farthest_units": float(f"{self.farthest:.3g}"),
            "peer_chose_otherwise_percent": share["chosen"],
            "peer_in_float64_differs_percent": share["differ_exactly"],
            "peer_in_float64_farther_than_one_unit_percent": share["farther_exactly"],
        }


def units(values: Array, bits: int, share: int) -> Array:
    """The distance of neighbouring numbers at each value, or at 1/share of the root mean square."""
    least = float(np.sqrt(np.mean(values**2))) / share
    _, exponent = np.frexp(np.maximum(np.abs(values), max(least, 1e-30)))
    return np.asarray(np.ldexp(1.0, exponent - bits))


def compared(folder: Path, case: Case, number: int, dtype: str) -> dict[str, Any]:
    """One merge in one dtype, in both tools and from the formula."""
    names = ["base", *case.models] if case.base else list(case.models)
    stored = {name: read(folder / dtype / name) for name in ("base", *MOVED)}
    out = folder / dtype / f"ours-{number}"
    case.run(folder / dtype, out)
    ours, peer, precise = (
        read(path)
        for path in (out, *(folder / dtype / f"{w}-{number}" for w in ("peer", "precise")))
    )
    tally = Tally()
    for name in ours:
        arrays = {letter: each[name].double().numpy() for letter, each in stored.items()}
        expected = case.formula([arrays[letter] for letter in names])
        tally.add(ours[name], peer[name], precise[name], expected, arrays["base"])
    return tally.as_data()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--peer", type=Path, required=True, help="Python with mergekit 0.1.5")
    options.add_argument("--only", help="methods, separated by commas; nothing is kept")
    settings = options.parse_args()
    folder = settings.folder.resolve()
    chosen = settings.only.split(",") if settings.only else [case.command for case in CASES]
    cases = {i: case for i, case in enumerate(CASES) if case.command in chosen}
    jobs = {}
    for dtype in PRECISIONS:
        write_models(folder / dtype, dtype)
        for i, case in cases.items():
            for kind, computed in (("peer", dtype), ("precise", "float64")):
                text = case.configuration(folder / dtype, computed, dtype)
                jobs[str(folder / dtype / f"{kind}-{i}")] = text
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [settings.peer.absolute(), "-c", PEER], input=json.dumps(jobs), text=True, check=True,
        cwd=folder, env=environment,
    )  # fmt: skip
    rows = []
    for i, case in cases.items():
        for dtype in PRECISIONS:
            rows.append({"merge": case.title, "dtype": dtype, **compared(folder, case, i, dtype)})
    keys = list(rows[0])
    print(table([keys, *([row[key] for key in keys] for row in rows)]))
    result = about("torch", "numpy", "safetensors") | {"peer": version(settings.peer.absolute())}
    if not settings.only:
        write_result("mergekit", result | {"merges": rows})


if __name__ == "__main__":
    main()
