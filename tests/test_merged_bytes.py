"""Merges as whole commands: in bfloat16 every value is the formula's, rounded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faults
import merge_reference as formulas
import numpy as np
import pytest
import torch
import zoo
from reference import nearest

import uvmerge

Array = formulas.Array
SHAPES = {
    "model.embed_tokens.weight": (40, 16),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.layers.0.mlp.down_proj.weight": (16, 24),
    "model.layers.0.input_layernorm.weight": (16,),
    "model.layers.1.self_attn.q_proj.weight": (16, 16),
    "model.norm.weight": (16,),
}
W2, W3, HALF, G3 = (0.7, 0.3), (0.5, 0.3, 0.4), (0.5,) * 3, (0.01,) * 3
# The checkpoints by their letters, x being the base; the options; the formula.
CASES: list[tuple[str, str, dict[str, Any], Any]] = [
    ("linear", "abc", {"weight": W3}, lambda x: formulas.linear(x, W3)),
    ("task_arithmetic", "xabc", {"weight": W3, "scale": 0.8},
     lambda x: formulas.task_arithmetic(x[0], x[1:], W3, 0.8)),
    ("slerp", "ab", {"t": 0.3}, lambda x: formulas.slerp(x[0], x[1], 0.3)),
    ("nuslerp", "ab", {"weight": W2}, lambda x: formulas.nuslerp(x[0], x[1], W2)),
    ("multislerp", "abc", {"weight": W3}, lambda x: formulas.multislerp(x, W3)),
    ("karcher", "abc", {}, formulas.karcher),
    ("ties", "xabc", {"weight": W3, "density": 0.5},
     lambda x: formulas.ties(x[0], x[1:], W3, HALF)),
    ("breadcrumbs", "xabc", {"weight": W3, "density": 0.5},
     lambda x: formulas.breadcrumbs(x[0], x[1:], W3, HALF, G3)),
    ("breadcrumbs_ties", "xabc", {"weight": W3, "density": 0.5},
     lambda x: formulas.breadcrumbs_ties(x[0], x[1:], W3, HALF, G3)),
    ("model_stock", "xabc", {}, lambda x: formulas.model_stock(x[0], x[1:])),
    ("sce", "xabc", {"select_topk": 0.3}, lambda x: formulas.sce(x[0], x[1:], 0.3)),
    ("nearswap", "xa", {"t": 0.02}, lambda x: formulas.nearswap(x[0], x[1], 0.02)),
    ("arcee_fusion", "xa", {}, lambda x: formulas.arcee_fusion(x[0], x[1])),
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base x and three fine-tunes of it, each cut into other shards."""
    root, dice, found = tmp_path_factory.mktemp("models"), np.random.default_rng(5), {}
    plain = {name: dice.normal(size=shape) for name, shape in SHAPES.items()}
    for number, letter in enumerate("xabc"):
        moved = {n: w + 0.05 * number * dice.normal(size=w.shape) for n, w in plain.items()}
        tensors = {name: torch.tensor(w).bfloat16() for name, w in moved.items()}
        found[letter] = faults.write(root / letter, tensors, shards=number + 1)
    return found


@pytest.mark.parametrize(
    ("name", "letters", "options", "formula"), CASES, ids=lambda c: str(c)[:16]
)
def test_every_value_is_the_formula_rounded_once(
    name: str,
    letters: str,
    options: dict[str, Any],
    formula: Any,
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    several = [folders[letter] for letter in letters]
    stored = [zoo.tensors(folder) for folder in several]
    one = getattr(uvmerge, name)(*several, tmp_path / "one", workers=1, **options).out
    two = getattr(uvmerge, name)(
        *several, tmp_path / "two", workers=2, max_shard_size="1kB", **options
    ).out
    found = zoo.tensors(one)
    assert zoo.raw(one) == zoo.raw(two)
    for tensor in SHAPES:
        expected = nearest(formula([each[tensor].double().numpy() for each in stored]))
        assert found[tensor].dtype == torch.bfloat16
        assert np.array_equal(found[tensor].double().numpy(), expected), tensor


def test_settings_of_a_sweep_share_the_tensors_that_they_pass_over(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uvmerge.engine.reading import Reader

    loaded: list[tuple[str, Any]] = []
    real = Reader.load

    def load(reader: Reader, role: str, view: Any) -> torch.Tensor:
        loaded.append((role, view))
        return real(reader, role, view)

    monkeypatch.setattr(Reader, "load", load)
    models = list(folders.values())[:2]
    uvmerge.sweep("ties", *models, tmp_path / "out", density=[0.2, 0.5], device="cpu")
    assert loaded and len(loaded) == len(set(loaded))
    for density in (0.2, 0.5):
        single = uvmerge.ties(*models, tmp_path / f"{density}", density=density, device="cpu").out
        assert zoo.raw(tmp_path / "out" / f"density-{density}") == zoo.raw(single)
