"""Hidden states: every measure is that of its formula, and what chance gives is the mean over all chances."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import zoo
from command import uv
from test_behaviour import BASE, FINETUNED, TEXTS, prompts, with_tokenizer, words

import uvmerge
from uvmerge import InputRefused, UsageError
from uvmerge.measure.findings import HiddenLayer
from uvmerge.measure.hidden import measure_layer
from uvmerge.models import hidden
from uvmerge.models.hidden import hidden_states

Array = np.ndarray


def cka(X: Array, Y: Array) -> float:
    X, Y = X - X.mean(0), Y - Y.mean(0)
    norms = np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y)
    return float(np.linalg.norm(Y.T @ X) ** 2 / norms)


def cosine(X: Array, Y: Array) -> float:
    return float(np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(X, Y)]))


def shift(X: Array, Y: Array, base: Array) -> float:
    spread = math.sqrt(np.mean([np.sum((x - base.mean(0)) ** 2) for x in base]))
    return float(np.linalg.norm(Y.mean(0) - X.mean(0)) / spread)


def mmd_squared(X: Array, Y: Array, base: Array) -> float:
    distances = sorted(np.linalg.norm(x - y) for x, y in itertools.combinations(base, 2))
    s = distances[(len(distances) - 1) // 2]  # torch's median is the lower one

    def mean(A: Array, B: Array) -> float:
        return float(np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * s**2)) for a in A for b in B]))

    return mean(X, X) + mean(Y, Y) - 2 * mean(X, Y)


def states(n: int, d: int, moved: float, seed: int = 0) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(n, d)) + 2
    return X, X + moved * (draw.normal(size=(n, d)) + 0.5)


def measured(X: Array, Y: Array) -> HiddenLayer:
    return measure_layer(3, torch.from_numpy(X), torch.from_numpy(Y))


@pytest.mark.parametrize(("n", "d"), [(5, 3), (5, 40), (4, 7)])
@pytest.mark.parametrize("moved", [0.01, 1.0, 30.0])
def test_every_measure_and_its_chance_are_those_of_the_formulas(
    n: int, d: int, moved: float
) -> None:
    X, Y = states(n, d, moved)
    found = measured(X, Y)
    pairings = [list(order) for order in itertools.permutations(range(n))]
    swaps = [np.array(which)[:, None] for which in itertools.product([False, True], repeat=n)]
    swapped = [(np.where(s, Y, X), np.where(s, X, Y)) for s in swaps]
    assert found.layer == 3
    assert found.cka == pytest.approx(cka(X, Y), rel=1e-9)
    assert found.cka_chance == pytest.approx(np.mean([cka(X, Y[p]) for p in pairings]), rel=1e-9)
    assert found.cosine == pytest.approx(cosine(X, Y), rel=1e-9)
    assert found.cosine_chance == pytest.approx(
        np.mean([cosine(X, Y[p]) for p in pairings]), rel=1e-9
    )
    assert found.shift == pytest.approx(shift(X, Y, X), rel=1e-9)
    of_swaps = [shift(A, B, X) ** 2 for A, B in swapped]
    assert found.shift_chance == pytest.approx(math.sqrt(np.mean(of_swaps)), rel=1e-9)
    assert found.mmd == pytest.approx(math.sqrt(mmd_squared(X, Y, X)), rel=1e-6)
    of_swaps = [mmd_squared(A, B, X) for A, B in swapped]
    assert found.mmd_chance == pytest.approx(math.sqrt(np.mean(of_swaps)), rel=1e-6)


def test_independent_states_show_what_chance_gives_and_few_prompts_show_nothing() -> None:
    draw = np.random.default_rng(1)
    many = measured(*draw.normal(size=(2, 400, 16)))
    few = measured(*draw.normal(size=(2, 5, 400)))
    assert many.cka == pytest.approx(many.cka_chance, abs=0.02) and many.cka_chance < 0.06
    assert few.cka == pytest.approx(few.cka_chance, abs=0.1) and few.cka_chance > 0.9
    assert many.cosine == pytest.approx(many.cosine_chance, abs=0.05)
    assert many.shift == pytest.approx(many.shift_chance, rel=0.5)
    assert many.mmd == pytest.approx(many.mmd_chance, rel=0.5)


def test_a_rotation_and_a_scale_leave_cka_at_one() -> None:
    X, _ = states(9, 6, 0)
    Q = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    found = measured(X, 3 * X @ Q + 1)
    assert found.cka == pytest.approx(1) and found.cosine < 0.9 and found.shift > 1


@pytest.mark.parametrize(
    ("X", "Y", "missing"),
    [
        (np.ones((4, 3)), np.ones((4, 3)), {"cka", "shift", "mmd"}),  # prompts that end alike
        (np.ones((4, 3)) / 3, states(4, 3, 1)[1], {"cka", "shift", "mmd"}),
        (np.zeros((4, 3)), states(4, 3, 1)[1], {"cka", "cosine", "shift", "mmd"}),
        (states(1, 3, 1)[0], states(1, 3, 1)[1], {"cka", "shift", "mmd"}),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_none(X: Array, Y: Array, missing: set[str]) -> None:
    found = vars(measured(X, Y))
    assert {key for key in found if found[key] is None} == {
        each for key in missing for each in (key, f"{key}_chance")
    }


def test_a_model_has_exactly_the_states_of_itself_and_other_states_than_another() -> None:
    same, other = hidden_states(BASE, [BASE, FINETUNED], TEXTS)
    assert same.prompts == 4 and [each.layer for each in same.layers] == [0, 1, 2, 3, 4]
    for each in same.layers:
        assert (each.cka, each.shift, each.mmd) == (1, 0, 0) and each.cosine == pytest.approx(
            1, abs=1e-15
        )
        assert each.shift_chance == each.mmd_chance == 0 and each.cka_chance < 1
    last = other.layers[-1]
    assert 0 < last.cka < 1 and 0 < last.cosine < 1 and last.shift > 0 and last.mmd > 0
    assert hidden_states(BASE, [FINETUNED], TEXTS) == [other]


def test_the_states_are_those_of_the_last_token() -> None:
    (found,) = hidden_states(BASE, [FINETUNED], TEXTS)
    tokens = transformers.AutoTokenizer.from_pretrained(BASE)
    both = []
    for folder in (BASE, FINETUNED):
        model = zoo.load(folder)[0].float()
        ids = [torch.tensor([tokens(prompt.content)["input_ids"]]) for prompt in TEXTS]
        with torch.no_grad():
            runs = [model(input_ids=x, output_hidden_states=True).hidden_states[2] for x in ids]
        both.append(torch.stack([run[0, -1] for run in runs]).double().numpy())
    assert astuple(found.layers[2])[1:] == pytest.approx(astuple(measured(*both))[1:], rel=1e-4)


def test_long_prompts_are_cut_at_the_smaller_context(tmp_path: Path) -> None:
    short = shutil.copytree(FINETUNED, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16}))
    long = prompts(*(" ".join([words(20, i)] * 2) for i in (1, 4)))
    whole, cut = hidden_states(BASE, [FINETUNED, short], long)
    assert [cut] == hidden_states(BASE, [FINETUNED], long, most_tokens=16) and cut != whole


def test_only_so_many_prompts_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "MOST_PROMPTS", 3)
    assert hidden_states(BASE, [FINETUNED], TEXTS) == hidden_states(BASE, [FINETUNED], TEXTS[:3])
    with pytest.raises(UsageError, match="there are none"):
        hidden_states(BASE, [FINETUNED], [])


def with_fewer_layers(tmp_path: Path) -> Path:
    folder = shutil.copytree(FINETUNED, tmp_path / "shallow")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    return folder


def no_tokenizer(tmp_path: Path) -> Path:
    return shutil.copytree(BASE, tmp_path / "b", ignore=shutil.ignore_patterns("tokenizer.json"))


def encoder(tmp_path: Path) -> Path:
    return with_tokenizer(zoo.make("bert", tmp_path / "bert"))


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (with_fewer_layers, "its hidden states have 3 layers of width 128, the base's 4 layers"),
        (no_tokenizer, "has no tokenizer"),
        (encoder, "BertForMaskedLM is not a causal language model"),
    ],
)  # fmt: skip
def test_what_does_not_compare_is_refused(
    tmp_path: Path, plant: Callable[[Path], Path], what: str
) -> None:
    folder = plant(tmp_path)
    with pytest.raises(InputRefused) as refused:
        hidden_states(BASE, [folder], TEXTS)
    assert str(refused.value.where) == str(folder) and what in str(refused.value)
    assert "eave out --hidden." in refused.value.do


@pytest.mark.parametrize("family", ["gpt2", "qwen3_moe", "gemma3_vision"])
def test_other_families_have_hidden_states_as_well(tmp_path: Path, family: str) -> None:
    base, finetuned = map(with_tokenizer, zoo.pair(family, tmp_path))
    same, other = hidden_states(base, [base, finetuned], TEXTS)
    assert all(each.mmd in (0, None) for each in same.layers)
    assert 0 < other.layers[-1].shift < 10 and other.layers[-1].cka < 1


def test_diff_tells_the_hidden_states_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(prompt.content) for prompt in TEXTS))
    report = tmp_path / "report"
    options = ["--hidden", path, "--kl", path, "--out", report]
    outcome = uv(capsys, "diff", BASE, FINETUNED, *options)
    assert outcome.code == 0
    (expected,) = hidden_states(BASE, [FINETUNED], TEXTS)
    (checkpoint,) = json.loads((report / "report.json").read_text())["checkpoints"]
    rows = checkpoint["hidden"]["layers"]
    assert [row["layer"] for row in rows] == [0, 1, 2, 3, 4]
    assert list(rows[-1].values()) == pytest.approx(astuple(expected.layers[-1]), rel=1e-5)
    curve = checkpoint["behaviour"]["overlap_curve"]
    assert [each["k"] for each in curve] == [1, 2, 5, 10, 20, 50] and checkpoint["behaviour"][
        "js"
    ] > 0
    schema = (Path(__file__).parent.parent / "docs" / "report.md").read_text()
    for key in ("prompts", "layers", *rows[0], *checkpoint["behaviour"], *curve[0]):
        assert f"`{key}`" in schema or f"`{key}[]`" in schema, key
    said = " ".join(outcome.out.split())
    assert "hidden states of the last token" in said and "paired at random" in said
    page = (report / "report.html").read_text()
    assert "Hidden states" in page and "Linear CKA" in page and "Overlap of the likeliest" in page
    uvmerge.diff(BASE, FINETUNED, hidden=path)
