"""The stages trajectory, reinforcement and premise: planted truths, what they compute, and their page."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from uvmerge import demo
from uvmerge.demo import sums
from uvmerge.errors import RunFailed
from uvmerge.study import course, docs, fisher, moved, results as results_module, run as run_module
from uvmerge.study.helpers import cores
from uvmerge.study.journal import DONE, Journal
from uvmerge.study.kinds import trained_words
from uvmerge.study.lab import Lab, Pair, load
from uvmerge.study.page import claims_of, page
from uvmerge.study.ranks import correlation, interval, spearman
from uvmerge.study.reinforce import Reinforce
from uvmerge.study.results import results
from uvmerge.study.sizes import FULL, QUICK, Sizes
from uvmerge.study.stage import Measured, stages
from uvmerge.study.stages import reinforcement
from uvmerge.study.verdicts import CANNOT_TELL, NOT_SEEN, SEEN, verdict
from uvmerge.tasks.student import mean_over

ROOT = Path(__file__).resolve().parent.parent
STEPS = (2, 4, 8, 16)
Values = dict[str, Any]


# Ranks.


def test_rank_correlation_is_that_of_scipy_ties_included() -> None:
    stats = pytest.importorskip("scipy.stats")
    dice = random.Random(3)
    for count in (5, 12, 40):
        x, y = ([dice.randrange(8) for _ in range(count)] for _ in range(2))
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_the_interval_of_a_rank_correlation_holds_zero_where_there_is_none() -> None:
    dice, held = random.Random(5), 0
    for _ in range(300):
        x, y = ([dice.gauss(0, 1) for _ in range(12)] for _ in range(2))
        ends = interval(spearman(x, y), 12)
        assert ends is not None
        held += ends[0] <= 0 <= ends[1]
    assert 0.91 < held / 300 < 0.99
    assert interval(1.0, 3) is None and interval(-1.0, 6)[1] < 0  # type: ignore[index]
    assert correlation("It ranks.", "all", range(9), range(9))["verdict"] == SEEN
    assert correlation("It ranks.", "all", range(9), range(0, -9, -1))["verdict"] == NOT_SEEN


# Planted pairs.


def scores(inside: float, outside: float) -> dict[str, float]:
    return {"loss": 2 * (1 - inside), "in_domain": inside, "out_of_domain": outside}


def weights(size: float) -> dict[str, float]:
    """Measures of a change that turns vectors and hardly changes values."""
    found = dict.fromkeys(moved.MEASURES, size)
    return {
        **found, "values": size / 100, "inside": 0.3, "inside_chance": 0.03, "diagonal": 0.01,
        "diagonal_chance": 0.04, "head": 2 * size, "bulk": size, "tail": 2 * size,
    }  # fmt: skip


def along(seed: int, outside: tuple[float, ...], noise: float = 0.0) -> Values:
    """What the trajectory stage measures where accuracy out of domain goes along `outside`."""
    dice = random.Random(seed)
    values: Values = {"training_loss": {str(step): 1 / step for step in STEPS}}
    for place, step in enumerate((0, *STEPS)):
        seen = scores(0.5 + 0.1 * place, outside[place] + noise * dice.gauss(0, 1))
        values[f"scores-{step}"] = seen
        values[f"choosing-{step}"] = seen if not noise else scores(
            0.5 + 0.1 * place, outside[place] + noise * dice.gauss(0, 1)
        )  # fmt: skip
        values[f"kl-{step}"] = {"kl": 0.1 * place, "kl_out": 0.1 * place}
    values["moved"] = [weights(0.01 * step * (1 + seed)) for step in STEPS]
    values["control"] = {**weights(0.01), "values": 0.5, "head": 0.01, "tail": 0.01}
    return values


def run_of(seed: int, win: float, repair: float, noise: float = 0.0) -> Values:
    """What the reinforcement stage measures where RL wins `win` and a repaired start `repair` more."""
    dice, values = random.Random(seed), Values(starts={"short": 2, "long": 16, "best": 2})
    values["sft"] = {str(step): scores(0.5, 0.3) for step in STEPS}
    for start, outside in (("short", 0.6), ("long", 0.4)):
        paths = (
            (start, outside, outside + win),
            (f"{start}-repaired", 0.7, outside + win + repair),
        )
        for name, first, last in paths:
            end = scores(0.9, last + noise * dice.gauss(0, 1))
            values[name] = {"0": scores(0.8, first), "50": {**end, "reward": 0.8}}
        turned = 0.3 + noise * dice.gauss(0, 1)
        values[f"turn-{start}"] = {"before": 0.3 + win, "after": turned}
        values[f"reverse-{start}"] = scores(0.8, outside + noise * dice.gauss(0, 1))
    return values


def block_of(seed: int, inside: float, noise: float = 0.0) -> Values:
    """What the premise stage measures where `inside` of the weighted movement is in the block."""
    dice = random.Random(seed)
    share = inside + noise * dice.gauss(0, 1)
    found = {
        "area": 0.02, "energy": share, "information": share, "weighted": share,
        "weighted_chance": 0.02, "rank_block": share, "rank_whole": 0.02,
    }  # fmt: skip
    states = {f"{name}_{at}": 0.9 for name in ("sft", "rpsft") for at in ("mean", "last")}
    each = {f"scores-{name}": scores(0.9, 0.5) for name in ("sft", "rpsft")}
    return {"fisher": found, "states": states, **each}


PLANTED = {
    "trajectory": [along(seed, (0.9, 0.95 + 0.001 * seed, 0.7, 0.6, 0.5)) for seed in range(4)],
    "reinforcement": [run_of(seed, 0.1, 0.1, 0.001) for seed in range(4)],
    "premise": [block_of(seed, 0.9, 0.001) for seed in range(4)],
}


def verdicts(stage: str, planted: list[Values]) -> dict[str, str]:
    pairs = [Measured("part", seed, values) for seed, values in enumerate(planted)]
    found = stages()[stage].summarise(pairs)
    return {one["claim"]: one["verdict"] for one in found["claims"]}


def test_an_early_peak_and_turned_vectors_are_found_and_their_opposite_too() -> None:
    said = verdicts("trajectory", PLANTED["trajectory"])
    assert set(said.values()) == {SEEN} and len(said) == 13
    late = verdicts(
        "trajectory", [along(s, (0.9, 0.5, 0.6, 0.7, 0.8 + 0.001 * s)) for s in range(4)]
    )
    against = [claim for claim, word in late.items() if word == NOT_SEEN]
    assert len(against) == 5  # all claims on scores, and no claim on weights


def test_what_rl_wins_back_and_what_a_repaired_start_adds_is_found() -> None:
    said = verdicts("reinforcement", PLANTED["reinforcement"])
    assert set(said.values()) == {SEEN} and len(said) == 13
    lost = verdicts("reinforcement", [run_of(seed, -0.1, -0.1, 0.001) for seed in range(4)])
    won = [claim for claim, word in lost.items() if word == SEEN]
    assert len(won) == 5 and not [claim for claim in won if "wins back" in claim]


def test_a_repaired_start_is_compared_at_no_less_in_domain() -> None:
    others = [scores(0.6, 0.9), scores(0.8, 0.5), scores(0.9, 0.4)]
    assert reinforcement.best_at(others, 0.7) == 0.5
    assert reinforcement.best_at(others, 0.5) == 0.9
    assert reinforcement.best_at(others, 0.95) == 0.4  # none reaches it: the best in domain


def test_random_evaluations_can_tell_nothing_in_most_seeds() -> None:
    said: list[str] = []
    for first in range(0, 100, 5):
        flat = [along(seed, (0.5,) * 5, 0.05) for seed in range(first, first + 5)]
        rises = verdicts("trajectory", flat)
        said += [rises[next(claim for claim in rises if "first rises" in claim)]]
        still = verdicts(
            "reinforcement", [run_of(s, 0.0, 0.0, 0.05) for s in range(first, first + 5)]
        )
        said += [word for claim, word in still.items() if "wins back" in claim or "turns" in claim]
    assert said.count(CANNOT_TELL) >= 0.9 * len(said) and len(said) == 100


def test_the_points_of_a_fine_tuning_are_chosen_by_both_accuracies() -> None:
    inside, outside = (0.1, 0.4, 0.6, 0.995, 1.0, 0.9), (0.8, 0.9, 0.5, 0.4, 0.3, 0.2)
    seen = {step: scores(a, b) for step, a, b in zip((1, 2, 4, 8, 16, 32), inside, outside)}
    assert course.points_of(seen) == {"best": 2, "short": 4, "right": 8, "long": 32}


# What the stages compute.


def test_reinforce_follows_the_gradient_of_the_expected_reward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uvmerge.study.reinforce.GROUP", 100_000)
    logits = torch.tensor([[0.5, -0.3, 0.1], [0.0, 2.0, -1.0]], requires_grad=True)
    answers = torch.tensor([0, 1])
    loss = Reinforce(0)
    (ours,) = torch.autograd.grad(loss(logits, answers, answers), logits)
    expected = logits.softmax(-1)[torch.arange(2), answers].mean()
    (exact,) = torch.autograd.grad(-expected, logits)
    assert torch.allclose(ours, exact, atol=3e-3) and exact.abs().max() > 0.05
    assert loss.rewards == pytest.approx([expected.item()], abs=3e-3)
    sure = torch.tensor([[50.0, 0.0, 0.0]], requires_grad=True)
    (none,) = torch.autograd.grad(loss(sure, answers[:1], answers[:1]), sure)
    assert not none.any()  # all answers of the group are right


def test_shares_of_a_change_inside_and_outside_of_the_leading_block() -> None:
    torch.manual_seed(0)
    W = torch.randn(12, 20)
    at = {"w": fisher.Coordinates.of(W, 0.25)}
    sensitive = {"w": torch.rand(12, 20)}
    U, V, k = at["w"].U, at["w"].V, at["w"].k
    assert k == 3
    within = U[:, :k] @ torch.randn(k, k) @ V[:, :k].mT
    outside = U[:, k:] @ torch.randn(12 - k, 20) @ V.mT
    for change, share in ((within, 1.0), (outside, 0.0)):
        found = fisher.shares({"w": change}, at, sensitive)
        assert found["energy"] == pytest.approx(share, abs=1e-6)
        assert found["weighted"] == pytest.approx(share, abs=1e-6)
        assert found["area"] == 9 / 240
    drawn = [fisher.shares({"w": torch.randn(12, 20)}, at, sensitive) for _ in range(300)]
    mean = sum(each["weighted"] for each in drawn) / len(drawn)
    assert mean == pytest.approx(drawn[0]["weighted_chance"], abs=0.005)


@pytest.fixture
def pair(tmp_path: Path) -> Any:
    with Lab(tmp_path, Sizes(quick=True, hands=20, steps=8, batch=4)).opened(
        "part", 0, "trajectory"
    ) as opened:
        yield opened


def test_fisher_information_adds_up_to_the_mean_square_of_the_gradient(pair: Pair) -> None:
    base, name = load(pair.base), "model.layers.1.mlp.up_proj.weight"
    W = base.get_parameter(name)
    questions, _ = demo.evaluator.tensors(pair.tokenizer, "rank", sums.deal(2, 1))
    found = fisher.fisher(base, questions, {name: fisher.Coordinates.of(W, 0.2)}, 7)[name]
    dice, total = torch.Generator().manual_seed(7), 0.0
    for question in questions.split(1):
        log_probs = base(input_ids=question).logits[0, -1].log_softmax(-1)
        drawn = torch.multinomial(log_probs.exp(), 1, generator=dice)
        (gradient,) = torch.autograd.grad(log_probs[drawn].sum(), W)
        total += float(gradient.square().sum()) / 2
    assert float(found.sum()) == pytest.approx(total, rel=1e-4) and total > 0


def test_random_signs_keep_the_size_of_a_change_and_not_its_place(pair: Pair) -> None:
    (real,) = moved.moved(pair.base, [pair.finetuned])
    control = moved.with_random_signs(pair, pair.finetuned)
    assert control["relative"] == pytest.approx(real["relative"], rel=0.02)
    assert control["inside"] == pytest.approx(control["inside_chance"], rel=0.3)
    assert real["inside"] > 3 * real["inside_chance"] and real["over_band"] > 0.5
    assert not (pair.folder / "control").exists()


def test_one_training_run_leaves_all_checkpoints_and_the_last_one_is_its_end(pair: Pair) -> None:
    found = course.checkpoints(pair)
    assert list(found) == [1, 2, 4, 8] and all(f.is_dir() for f in found.values())
    kept = {step: folder.stat().st_mtime_ns for step, folder in found.items()}
    assert {s: f.stat().st_mtime_ns for s, f in course.checkpoints(pair).items()} == kept
    losses = course.training_losses(pair)
    assert losses.keys() == found.keys() and losses[1] > 0
    measured = moved.moved(pair.base, list(found.values()))
    sizes = [each["relative"] for each in measured]
    assert sizes == sorted(sizes) and sizes[0] > 0


# Results and page.


def fill(out: Path) -> Lab:
    """A finished study of planted pairs of one regime, in all stages of this file."""
    lab = Lab(out, QUICK)
    for seed in range(4):
        with Journal.opened(lab.journal("part", seed), lab.head) as journal:
            for stage, planted in PLANTED.items():
                for key, value in planted[seed].items():
                    journal.once(stage, key, lambda value=value: value)
                journal.once(stage, DONE, lambda: 2.5)
    return lab


def check_verdicts(found: dict[str, Any]) -> int:
    """Recompute every claim from the pairs, and its verdict from its values; returns how many."""
    count = 0
    for name, summary in found["stages"].items():
        measured = [Measured(**pair) for pair in summary["pairs"]]
        again = claims_of(stages()[name].summarise(measured))
        for one, made in zip(claims_of(summary), again, strict=True):
            if "points" in one:
                ends = interval(spearman(*one["points"]), len(one["points"][0]))
            else:
                ends = mean_over(one["values"]).interval
            assert one["verdict"] == verdict(ends)
            assert (one["claim"], one["verdict"]) == (made["claim"], made["verdict"])
            assert one["interval_95"] == (None if ends is None else pytest.approx(ends, abs=1e-4))
            count += 1
    return count


def test_results_figures_and_page_of_planted_pairs(tmp_path: Path) -> None:
    lab = fill(tmp_path)
    found = json.loads(results_module.as_json(results(lab, 4)))
    assert check_verdicts(found) > 40
    assert {name: found["stages"][name]["cpu_s"] for name in PLANTED} == dict.fromkeys(
        PLANTED, 10.0
    )
    paths = {path.name for path in results_module.save(found, tmp_path)}
    assert paths >= {f"{name}.{kind}" for name in PLANTED for kind in ("csv", "png")}
    text = (tmp_path / "study.md").read_text()
    assert "**This is a quick study**" in text and "differs from the papers" in text
    for summary in found["stages"].values():
        for one in claims_of(summary):
            assert f"| {one['claim']} | " in text and f"**{one['verdict']}**" in text
    full = {**found, "sizes": {**found["sizes"], "quick": False}}
    assert "quick" not in page(full)


def test_several_processes_work_on_one_study_and_a_failure_of_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    monkeypatch.setattr(run_module, "_left", lambda *a: [])
    monkeypatch.setattr(run_module, "_work", lambda *a: None)
    done = run_module.run(tmp_path, only="premise", seeds=4, quick=True, jobs=1)
    assert done.found["stages"].keys() == PLANTED.keys()
    monkeypatch.setattr("uvmerge.study.helpers._CODE", "raise SystemExit(1)")
    with pytest.raises(RunFailed, match="a process that worked on it ended with code 1"):
        run_module.run(tmp_path, only="premise", seeds=4, quick=True, jobs=2)


@pytest.mark.slow
def test_a_quick_study_has_all_sections_and_its_verdicts_follow_from_its_intervals(
    tmp_path: Path,
) -> None:
    done = run_module.run(tmp_path, quick=True, jobs=cores())
    assert not done.left and done.found["stages"].keys() == stages().keys()
    found = json.loads((tmp_path / "study.json").read_bytes())
    assert check_verdicts(found) > 60
    assert {c["pairs"] for s in found["stages"].values() for c in claims_of(s)} >= {3}
    text = (tmp_path / "study.md").read_text()
    for name, stage in stages().items():
        assert f"## {stage.title}\n" in text and stage.sized(QUICK) in text
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("sizes", [FULL, QUICK])
def test_the_page_tells_the_sizes_of_every_stage(sizes: Sizes) -> None:
    told = {name: stage.sized(sizes) for name, stage in stages().items()}
    assert all(re.search(r"\d", said) and said.endswith(".") for said in told.values())
    steps = course.steps(sizes)[-1]
    assert f"{steps} steps of 32 hands at a peak rate of {sizes.rate:g}" in told["trajectory"]
    assert f"{reinforcement.looks(sizes)[-1]} steps of 32" in told["reinforcement"]
    words = trained_words(["part", "well", "unseen"], sizes.quick)
    assert words.startswith("`part`, ") and "`unseen`" in words


def test_the_page_of_the_docs_is_that_of_the_results_file() -> None:
    found = json.loads((ROOT / docs.RESULTS).read_bytes())
    assert (ROOT / docs.PAGE).read_text() == page(found)
    assert check_verdicts(found)
    for name, summary in found["stages"].items():
        assert (ROOT / docs.PAGE).with_name(f"{name}.png").stat().st_size > 10_000
        rows = (ROOT / docs.RESULTS).with_name(f"study-{name}.csv").read_text()
        assert rows == results_module.as_csv(stages()[name].rows(summary))
