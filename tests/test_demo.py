"""The embedded pair and `uvmerge demo`: forgetting and repair, measured here and now."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
from command import uv

from uvmerge.demo import PAIRS, evaluator, pair, run as demo, sums, table
from uvmerge.errors import UsageError
from uvmerge.tasks.margins import Estimate
from uvmerge.tasks.statistics import LEVEL, Z, clustered_interval, wilson


def test_the_sums_follow_the_rules() -> None:
    hand = ("A", "10", "J", "Q", "K")
    assert [sums.answer(rule, hand) for rule in sums.RULES] == ["41", "47", "17", "11"]
    assert sums.encode(sums.IN_DOMAIN, hand) == "ten A 10 J Q K ="
    assert {sums.answer(rule, ("2", "3", "4", "A", "9")) for rule in sums.RULES} == {"19"}


def test_one_unordered_hand_in_three_is_held_out_in_every_order() -> None:
    held, trained = (sums.unordered_hands(held_out=each) for each in (True, False))
    assert len(held) + len(trained) == 6188 and 0.3 < len(held) / 6188 < 0.36
    assert all(sums.is_held_out(each) for each in itertools.permutations(held[7]))
    assert sums.unordered(("K", "10", "A", "2", "J")) == "A 2 10 J K"


def test_hands_are_held_out_fresh_by_seed_and_hold_a_face_card() -> None:
    hands = sums.deal(200, seed=3)
    assert hands == sums.deal(200, seed=3) != sums.deal(200, seed=4)
    assert all(sums.is_held_out(hand) and set(hand) & set(sums.FACES) for hand in hands)


def test_no_unordered_hand_comes_twice_before_all_have_come() -> None:
    every = len({*map(sums.unordered, sums.deal(5000, 1))})
    drawn = [*map(sums.unordered, sums.deal(2 * every, 2))]
    assert len(set(drawn[:every])) == every == len(set(drawn[every:]))


def test_the_halves_share_no_unordered_hand_and_are_all_held_out_hands() -> None:
    search, report, every = (
        {*map(sums.unordered, sums.deal(3000, 5, split))} for split in ("search", "report", "all")
    )
    assert not search & report and search | report == every
    assert 0.4 < len(search) / len(every) < 0.6
    with pytest.raises(ValueError, match="the splits are all, search, report"):
        sums.deal(5, 1, "test")


def test_training_deals_no_held_out_hand_and_every_answer_is_right() -> None:
    from uvmerge.demo import train

    tokenizer = train.build_tokenizer()
    for rule in sums.RULES:
        questions, answers = train._Dealer(tokenizer, 3).deal(rule, 400)
        for ids, answer in zip(questions.tolist(), answers.tolist()):
            word, *hand, equals = tokenizer.convert_ids_to_tokens(ids)
            assert (word, equals) == (rule, "=") and not sums.is_held_out(tuple(hand))
            assert tokenizer.convert_ids_to_tokens(answer) == sums.answer(rule, tuple(hand))


def answers(inside: list[int], *outside: list[int], clusters: list[str] | None = None) -> Any:
    """Answers under the rule of the fine-tuning and, in turn, under the others."""
    right = [np.array(each, dtype=bool) for each in (inside, *outside)]
    by_rule = dict(zip((sums.IN_DOMAIN, *sums.OUT_OF_DOMAIN), right, strict=True))
    return evaluator.Answers(tuple(clusters or map(str, range(len(inside)))), by_rule)


def test_out_of_domain_is_the_mean_of_each_hand_over_the_other_rules() -> None:
    found = answers([1, 0], [1, 0], [1, 1], [0, 0])
    assert found.out_of_domain.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found.accuracies == (0.5, pytest.approx(0.5))


def test_the_interval_by_bootstrap_is_that_of_the_cluster_robust_standard_error() -> None:
    dice = np.random.default_rng(4)
    hands = np.repeat(dice.uniform(0.2, 1, 300), 5)  # five orders of a hand are alike
    found = table.Score((dice.uniform(size=1500) < hands) * 1.0, [str(i // 5) for i in range(1500)])
    half = (found.interval[1] - found.interval[0]) / 2
    assert half == pytest.approx(Z * found.standard_error, rel=0.06)
    alone = table.Score(found.values, [str(i) for i in range(1500)])
    assert found.standard_error > 1.2 * alone.standard_error
    low, high = wilson(int(found.values.sum()), 1500)
    assert (alone.interval[1] - alone.interval[0]) == pytest.approx(high - low, rel=0.06)


def test_where_all_is_right_the_interval_counts_unordered_hands() -> None:
    clusters = [str(i // 2) for i in range(100)]
    assert clustered_interval(np.ones(100), clusters) == wilson(50, 50)
    assert clustered_interval(np.zeros(100), clusters) == wilson(0, 50)
    assert LEVEL == 0.95


def row(name: str, low: float, high: float, is_control: bool = False) -> table.Row:
    found = answers([1, 0], [1, 0], [1, 1], [0, 0])
    estimate = Estimate((low + high) / 2, (low, high))
    return table.Row(name, "", found, 0.5, None, estimate, is_control)


def shares(name: str, inside: float, outside: float, count: int = 100) -> table.Row:
    """A row with so many of its hands right."""
    right = [[int(i < share * count) for i in range(count)] for share in (inside, outside)]
    found = answers(right[0], right[1], right[1], right[1])
    return table.Row(name, "", found, None, None)


def test_a_row_is_judged_by_the_line_at_its_own_accuracy_in_domain() -> None:
    line = [shares("base", 0.5, 1), shares("finetuned", 1, 0.4), shares("half", 0.7, 0.9)]
    for inside, outside, over in [
        (0.85, 0.7, 0.05),  # half way between the last two points
        (0.6, 0.9, -0.05),
        (0.2, 0.9, -0.1),  # the base has more in both domains
        (1, 0.4, 0),
    ]:
        found = demo._over_line(shares("row", inside, outside), line, among=3)
        assert found.value == pytest.approx(over), (inside, outside)
        assert found.interval is not None and found.interval[0] <= over <= found.interval[1]
    wide, narrow = (demo._over_line(shares("row", 0.85, 0.7), line, n).interval for n in (18, 1))
    assert wide is not None and narrow is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]  # of many rows each has to be surer


def test_the_last_sentence_follows_from_the_margins() -> None:
    lost, open_, won = row("a", -0.2, -0.1), row("b", -0.1, 0.1), row("c", 0.01, 0.2)
    rest = "; the others cannot be told from it."
    said = table.verdict([lost, open_])
    assert said == f"Nothing beats interpolation. Of 2 rows, 1 lie below the line{rest}"
    said = table.verdict([lost, won])
    assert said == "c beats interpolation on this pair. Of 2 rows, 1 lie below the line."
    said = table.verdict([won, row("d", 0.1, 0.2, is_control=True), open_])
    assert said.startswith("c, d (a control) beat interpolation on this pair.")
    assert table.verdict([]).startswith("Nothing beats interpolation.")


def test_no_line_of_the_table_is_wider_than_100_columns() -> None:
    report = table.DemoReport((row("project-left-0.85", -0.15, -0.14),), "part", 2, 1, {})
    lines = str(report).splitlines()
    assert max(map(len, lines[:-1])) <= 100  # the last is a sentence
    told = report.as_dict()["rows"][0]
    assert told["answers"]["ten"] == "10" and told["over_line"]["interval_95"] == [-0.15, -0.14]


def test_the_wilson_interval_is_the_published_one() -> None:
    # Wilson 1927 by hand for 8 of 10: centre (p + z²/2n)/(1 + z²/n), half-width z√(…)/(1 + z²/n)
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.49016, abs=1e-4) and high == pytest.approx(0.94332, abs=1e-4)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1


@pytest.mark.parametrize("regime", PAIRS)
def test_the_pairs_are_small_and_name_nobody(regime: str) -> None:
    for folder in pair(regime):
        assert (folder / "model.safetensors").stat().st_size < 2_000_000
        for path in folder.glob("*.json"):
            assert "/" not in json.loads(path.read_text()).get("_name_or_path", "")


@pytest.mark.parametrize("regime", PAIRS)
def test_the_pairs_are_of_their_regime_and_forget(regime: str) -> None:
    base, finetuned = (evaluator.answers(each, hands=300).accuracies for each in pair(regime))
    known = {"part": (0.3, 0.75), "unseen": (0, 0.1)}[regime]
    assert known[0] <= base[0] <= known[1] and base[1] > 0.9
    assert finetuned[0] > 0.97 and finetuned[1] < base[1] - 0.3


def test_there_is_no_pair_of_a_base_that_knows_all() -> None:
    with pytest.raises(ValueError, match="there are part, unseen"):
        pair("well")


def test_a_model_in_memory_is_asked_like_its_folder() -> None:
    from uvmerge.demo import train
    from uvmerge.models.load import load_model

    base = pair()[0]
    import torch

    model = load_model(base, dtype=torch.float32, causal=True).model
    tokenizer = train.build_tokenizer()
    found = evaluator.answers(model, tokenizer=tokenizer, hands=50, split="report")
    assert found.accuracies == evaluator.answers(base, hands=50, split="report").accuracies
    with pytest.raises(ValueError, match="needs its tokenizer"):
        evaluator.answers(model)


JOBS = ("restore-0.2", "interpolate-0.3", "layers-back")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that makes three checkpoints."""
    made = demo._jobs()
    monkeypatch.setattr(demo, "_jobs", lambda: [job for job in made if job.name in JOBS])


@pytest.mark.usefixtures("few")
def test_the_demo_shows_forgetting_and_what_is_over_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "demo", tmp_path / "out", "--hands", "300", "--json")
    assert shown.code == 0
    data = json.loads(shown.out)
    rows = {row["name"]: row for row in data["rows"]}
    assert [*rows] == ["base", "finetuned", "interpolate-0.3", "restore-0.2", "layers-back"]
    base, finetuned = rows["base"], rows["finetuned"]
    assert finetuned["out_of_domain"]["interval_95"][1] < base["out_of_domain"]["interval_95"][0]
    assert rows["interpolate-0.3"]["over_line"] is None is base["over_line"]
    low, high = rows["restore-0.2"]["over_line"]["interval_95"]
    assert low < rows["restore-0.2"]["over_line"]["value"] < high
    assert base["recovered_of_loss"] == 1 and finetuned["recovered_of_loss"] == 0
    assert data["verdict"] and {len(a) for a in base["answers"].values()} == {300}
    weights = json.loads((tmp_path / "out" / "diff" / "report.json").read_text())
    assert [c["verdict"] for c in weights["checkpoints"]] == ["related"] * 3
    words = ["--load", "--against", tmp_path / "out" / "finetuned"]
    assert uv(capsys, "check", tmp_path / "out" / "restore-0.2", *words).code == 0
    other = uv(capsys, "demo", tmp_path / "out", "--pair", "unseen")
    assert other.code == 2 and "already holds base, finetuned" in other.err


def test_the_controls_set_back_what_their_names_say(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    jobs, folders = {job.name: job for job in demo._jobs()}, pair()
    base, finetuned = (load_file(each / "model.safetensors") for each in folders)
    backs = {"layers-back": "model.layers.", "embed-head-back": ("model.embed_tokens", "lm_head")}
    for name, back in backs.items():
        jobs[name].make(*folders, tmp_path / name, overwrite=False)
        made = load_file(tmp_path / name / "model.safetensors")
        for key, tensor in made.items():
            source = base if key.startswith(back) else finetuned
            assert tensor.equal(source[key]), (name, key)
        assert sum(key.startswith(back) for key in made) in (2, 36)
        assert jobs[name].is_control


def test_every_command_of_the_table_is_one_that_a_user_can_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, finetuned = map(str, pair())
    for job in demo._jobs():
        words = job.command.replace(" base ", f" {base} ").replace(" finetuned ", f" {finetuned} ")
        words = words.replace(f" {job.name} ", f" {tmp_path / 'out'} ")
        assert uv(capsys, *words.split()[1:], "--dry-run").code == 0, job.command
    assert sum(job.is_of_line for job in demo._jobs()) == 9  # eleven points with both ends


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that makes two checkpoints and asks them nothing."""
    shown, made = demo._SHOWN, demo._jobs()
    monkeypatch.setattr(demo, "_jobs", lambda: [job for job in made if job.name in shown])
    told = answers([1, 0], [1, 0], [1, 1], [0, 0])
    monkeypatch.setattr(evaluator, "answers", lambda folder, hands, seed: told)


@pytest.mark.usefixtures("short")
def test_the_same_demo_again_keeps_what_is_there(tmp_path: Path) -> None:
    demo.run(tmp_path / "out", hands=100)
    before = faults.tree(tmp_path / "out" / "restore-0.2")
    report = (tmp_path / "out" / "report.json").read_bytes()
    (tmp_path / "out" / "report.json").unlink()  # as after a kill before the last steps
    (tmp_path / "out" / "report.md").unlink()
    (tmp_path / "out" / "base" / "model.safetensors").unlink()
    shutil.rmtree(tmp_path / "out" / "interpolate-0.3")
    os.utime(tmp_path / "out" / "restore-0.2" / "uvmerge.json", ns=(2**62, 2**62))
    demo.run(tmp_path / "out", hands=100)
    assert faults.tree(tmp_path / "out" / "restore-0.2").keys() == before.keys()
    assert (tmp_path / "out" / "report.json").read_bytes() == report
    demo.run(tmp_path / "out", hands=100)
    assert os.listdir(tmp_path) == ["out"]
    with pytest.raises(UsageError, match="already holds report"):
        demo.run(tmp_path / "out", hands=101)


@pytest.mark.parametrize("what", ["base", "restore-0.2", "report.md"])
@pytest.mark.usefixtures("short")
def test_a_demo_never_writes_over_what_is_not_its_own(what: str, tmp_path: Path) -> None:
    place = tmp_path / "out" / what
    place.mkdir(parents=True)
    (place / "config.json").write_text("mine")
    with pytest.raises(UsageError, match=f"already holds {what}"):
        demo.run(tmp_path / "out", hands=100)
    assert faults.contents(tmp_path / "out") == {f"{what}/config.json": b"mine"}


def test_an_unknown_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There are: part, unseen"):
        demo.run(tmp_path / "out", pair="well")
    assert not os.listdir(tmp_path)


def test_the_training_script_writes_a_pair_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    from uvmerge.demo import train

    monkeypatch.setattr(train, "_TEST_HANDS", 20)
    words = ["--regime", "unseen", "--base-steps", "3", "--finetune-steps", "2", "--batch", "16"]
    train.main([str(tmp_path), *words])
    for name in ("base", "finetuned"):
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert sum(p.numel() for p in model.parameters()) == 811_648


def test_the_regimes_differ_in_what_the_base_sees() -> None:
    from uvmerge.demo.train import SCHEDULES

    assert SCHEDULES.keys() == sums.REGIMES.keys()
    seen = {regime: each.base.hands.get(sums.IN_DOMAIN, 0) for regime, each in SCHEDULES.items()}
    assert seen["unseen"] == 0 < seen["part"] < seen["well"]
    for each in SCHEDULES.values():
        assert sum(each.base.hands.values()) == each.batch
        assert each.finetuning.hands == {sums.IN_DOMAIN: each.batch}


def test_a_run_of_training_can_be_watched_and_changed() -> None:
    import torch

    from uvmerge.demo import train

    tokenizer = train.build_tokenizer()
    course = train.Course({"ten": 4, "low": 3}, steps=3, peak_rate=1e-3, seed=1)
    seen: dict[str, list[Any]] = {"steps": [], "shapes": [], "norms": []}

    def loss(logits: Any, right: Any, questions: Any) -> Any:
        seen["shapes"].append((logits.shape[0], right.shape, questions.shape))
        return torch.nn.functional.cross_entropy(logits, right)

    def trained(**hooks: Any) -> Any:
        torch.manual_seed(0)
        model = train.build_model(tokenizer)
        train.fit(model, tokenizer, course, **hooks)
        return model.lm_head.weight.detach()

    plain = trained()
    watched = trained(on_step=lambda step, model: seen["steps"].append(step), loss=loss)
    assert torch.equal(plain, watched)  # the same loss in other words
    assert seen["steps"] == [0, 1, 2, 3] and seen["shapes"][0] == (7, (7,), (7, 7))

    def pull(model: Any) -> None:
        model.lm_head.weight.grad += model.lm_head.weight.detach()

    assert not torch.equal(plain, trained(add_gradient=pull))
