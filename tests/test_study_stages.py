"""The stages repair, hypothesis and search of the study: planted truths, the second task, what is pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from uvmerge import demo
from uvmerge.demo import sums
from uvmerge.study import second_task
from uvmerge.study.carry import chosen, leave_one_out, margin
from uvmerge.study.controls import control_scores, controls
from uvmerge.study.edits import LINE, edited_scores, on_line, point
from uvmerge.study.kinds import KINDS
from uvmerge.study.lab import Answered, Lab
from uvmerge.study.line import above_line, best_place, line_at
from uvmerge.study.one_pair import margin as margin_of_pair
from uvmerge.study.repairs import PROJECT, RESTORE, edits, parts
from uvmerge.study.sizes import Sizes, names
from uvmerge.study.stage import Measured
from uvmerge.study.stages import hypothesis, repair, search
from uvmerge.study.verdicts import CANNOT_TELL, SEEN, verdict
from uvmerge.tasks.student import mean_over

# Planted truths: the loss out of domain lies inside or outside of the base's leading block.

_NAME = "model.layers.0.mlp.up_proj.weight"


def planted_pair(folder: Path, seed: int, lost_inside: bool) -> SimpleNamespace:
    """A pair that fine-tuning turned by 0.3 rad inside the leading half and changed in the rest too.

    What a checkpoint knows in domain is how much of the change outside of the block it has. What it has
    lost out of domain is how much it has of the change inside, or of that outside.
    """
    weights = load_file(demo.pair("part")[0] / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for checkpoint in ("base", "finetuned"):
        (folder / checkpoint).mkdir(parents=True)
        source = demo.pair("part")[0]
        for file in source.iterdir():
            if file.name != "model.safetensors":
                (folder / checkpoint / file.name).write_bytes(file.read_bytes())
    draws = torch.randn((344, 128), generator=generator)
    U, _, Vh = torch.linalg.svd(draws, full_matrices=False)
    S = torch.cat([torch.linspace(10, 8, 64), torch.linspace(2, 1, 64)])
    turn = torch.linalg.matrix_exp(_skew(generator) * 0.3)
    inside = U[:, :64] @ (turn - torch.eye(64)) @ torch.diag(S[:64]) @ Vh[:64]
    outside = U[:, 64:] @ torch.randn((64, 64), generator=generator) @ Vh[64:] * 0.02
    base = (U * S) @ Vh
    for checkpoint, W in (("base", base), ("finetuned", base + inside + outside)):
        stored = {**{k: v.float() for k, v in weights.items()}, _NAME: W.contiguous()}
        save_file(stored, folder / checkpoint / "model.safetensors", {"format": "pt"})

    def scores(checkpoint: Path) -> dict[str, Any]:
        moved = load_file(checkpoint / "model.safetensors")[_NAME] - base
        there = [
            float((moved * change).sum() / change.square().sum()) for change in (inside, outside)
        ]
        lost, known = there[0 if lost_inside else 1], there[1]
        one = {"loss": 1 - 0.5 * known, "in_domain": 0.5 + 0.45 * known,
               "out_of_domain": 0.95 - 0.5 * lost}  # fmt: skip
        return {**one, "halves": [one, one]}

    base_folder, tuned = folder / "base", folder / "finetuned"
    return SimpleNamespace(base=base_folder, finetuned=tuned, folder=folder, scores=scores)


def _skew(generator: torch.Generator) -> torch.Tensor:
    A = torch.randn((64, 64), generator=generator)
    return (A - A.T) / torch.linalg.matrix_norm(A - A.T, 2)


@pytest.mark.parametrize("lost_inside", [True, False])
def test_a_loss_in_the_leading_block_is_repaired_and_one_outside_is_not(
    lost_inside: bool, tmp_path: Path
) -> None:
    chosen_edits = {e.name: e for e in edits() if e.name in (PROJECT, "restore-0.5")}
    measured = []
    for seed in range(3):
        pair: Any = planted_pair(tmp_path / str(seed), seed, lost_inside)
        values = {point(s): on_line(pair, pair.finetuned, s) for s in LINE}
        values |= {n: edited_scores(pair, pair.finetuned, e) for n, e in chosen_edits.items()}
        measured.append(Measured("part", seed, values))
    rows = {row["name"]: row for row in repair.rows_of(measured)}
    for name in chosen_edits:
        against = rows[name]["at_equal_accuracy"]
        assert (verdict(tuple(against["interval_95"])) == SEEN) == lost_inside
        assert against["mean"] == pytest.approx(0.5 if lost_inside else 0, abs=0.02)
        assert rows[name]["in_domain"]["mean"] == pytest.approx(0.95, abs=0.01)
        won = rows[name]["of_lost"]["mean"]
        assert won > 0.98 if lost_inside else abs(won) < 0.02


_QUICK = [*map(point, LINE), *(e.name for e in (*edits(True), *parts(True), *controls(True)))]


def random_pair(seed: int, quick: bool = True) -> Measured:
    """A pair on which an evaluation says the same of every checkpoint, but for chance."""
    dice = random.Random(seed)

    def noisy() -> dict[str, float]:
        return {
            "loss": dice.gauss(1, 0.05), "in_domain": dice.gauss(0.6, 0.02),
            "out_of_domain": dice.gauss(0.5, 0.02),
        }  # fmt: skip

    values = {}
    for name in _QUICK if quick else repair.labels():
        halves = [noisy(), noisy()]
        values[name] = {key: sum(h[key] for h in halves) / 2 for key in halves[0]}
        values[name]["halves"] = halves
    return Measured("part", seed, values)


def test_of_a_random_evaluation_one_cannot_tell() -> None:
    said = []
    for first in range(0, 100, 5):
        found = repair.summarise([random_pair(seed) for seed in range(first, first + 5)])
        rows = {row["name"]: row for row in found["rows"]}
        said.append([rows[n]["at_equal_accuracy"]["verdict"] for n in (PROJECT, RESTORE)])
    for verdicts in zip(*said, strict=True):
        assert verdicts.count(CANNOT_TELL) >= 18


def test_on_one_half_alone_noise_would_lie_below_its_own_line() -> None:
    dice = random.Random(7)
    crossed, plain = [], []
    for _ in range(400):
        lines = [[(dice.gauss(0.6, 0.02), dice.gauss(0.5, 0.02)) for _ in LINE] for _ in "ab"]
        ours = [(dice.gauss(0.6, 0.02), dice.gauss(0.5, 0.02)) for _ in "ab"]
        crossed.append(above_line((lines[0], ours[0]), (lines[1], ours[1])))
        plain.append(ours[0][1] - line_at(lines[0], ours[0][0]).value)
    assert abs(sum(crossed) / 400) < 0.004 < 0.015 < -sum(plain) / 400


def test_the_best_place_is_that_of_the_line() -> None:
    dice = random.Random(3)
    for _ in range(200):
        points = [(dice.random(), dice.random()) for _ in range(5)]
        level = dice.random() * 1.2
        same = (points, (level, 0.0))
        assert best_place(points, level).share < 1
        assert above_line(same, same) == pytest.approx(-line_at(points, level).value)


# Repair.


def test_every_edit_has_a_name_and_label_of_its_own_and_every_operation_is_there() -> None:
    from uvmerge import operations

    found = [*edits(), *parts(), *controls()]
    assert len({e.name for e in found}) == len({e.label for e in found}) == len(found)
    pairwise = {"restore", "reset_layers", "swap", "project", "values", "lines", "denoise",
                "truncate", "damp_intruders"}  # fmt: skip
    assert {edit.operation for edit in edits()} == pairwise
    assert all(operations.get(name) for name in pairwise)
    assert {e.name for e in edits(quick=True)} < {e.name for e in edits()}
    measured = [random_pair(seed, quick=False) for seed in range(3)]
    few = [random_pair(seed) for seed in range(3)]
    for pairs in (measured, few):
        found_claims = repair.summarise(pairs)["claims"]
        assert len(found_claims) == 8  # nothing was lost, so that no share of it was won back
        for one in found_claims:
            assert one["verdict"] == verdict(mean_over(one["values"]).interval)
    page = repair.STAGE.section(repair.summarise(few))
    assert "| restore --top 0.2 |" in page and "*controls*" in page and "70–80 %" in page
    assert repair.STAGE.rows(repair.summarise(few))[0]["of_best"] == pytest.approx(1)


def test_both_readings_of_recovered() -> None:
    values = {
        point(0.0): {"out_of_domain": 0.8}, point(1.0): {"out_of_domain": 0.4},
        "edit": {"out_of_domain": 0.7},
    }  # fmt: skip
    found = repair.recovered("edit", [Measured("part", 0, values)])
    assert found["of_best"]["mean"] == pytest.approx(0.875)
    assert found["of_lost"]["mean"] == pytest.approx(0.75)
    values[point(1.0)]["out_of_domain"] = 0.79
    assert repair.recovered("edit", [Measured("part", 0, values)])["of_lost"] is None


def test_a_control_edits_the_matrices_of_the_layers_with_other_directions(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    base, tuned = demo.pair("part")
    lab = Lab(tmp_path, Sizes(quick=True, hands=10))
    with lab.opened("part", 1, "repair") as pair:
        pair.folder.mkdir(exist_ok=True)
        (pair.folder / "base").symlink_to(demo.pair("unseen")[0])
        for control in controls()[:4]:
            ask: Callable[[Any], dict[str, Any]] = lambda model: (  # noqa: E731
                seen.update({control.name: model.state_dict()}) or {}  # noqa: B023
            )
            control_scores(pair, tuned, control, ask)
    before = load_file(tuned / "model.safetensors")
    assert len(seen) == 4
    for state in seen.values():
        assert torch.equal(state["lm_head.weight"], before["lm_head.weight"].float())
        changed = state["model.layers.0.mlp.up_proj.weight"]
        assert not torch.equal(changed, before["model.layers.0.mlp.up_proj.weight"].float())
    assert base != tuned


# The second task, the kinds, the hypothesis.


def test_the_second_task_asks_for_letters_in_order() -> None:
    assert second_task.answer("second", tuple("dpakf")) == "d"
    assert second_task.answer("fourth", tuple("dpakf")) == "k"
    assert second_task.encode("fourth", tuple("dpakf")) == "fourth d p a k f ="
    halves = [
        {*map(second_task.unordered, second_task.deal(700, 1, h))} for h in ("search", "report")
    ]
    assert not halves[0] & halves[1] and min(map(len, halves)) > 600
    assert len(second_task.unordered_hands(held_out=True)) == pytest.approx(4368 / 3, rel=0.05)


def test_training_hands_of_the_second_task_are_not_held_out() -> None:
    from uvmerge.demo.train import build_tokenizer

    tokenizer = build_tokenizer(second_task.vocabulary())
    questions, answers = second_task.Dealer(tokenizer, 5).deal("second", 300)
    said = tokenizer.batch_decode(questions)
    for question, answer in zip(said, tokenizer.convert_ids_to_tokens(answers.tolist())):
        rule, *hand, last = question.split()
        assert (rule, last) == ("second", "=") and len({*hand}) == 5
        assert not second_task.is_held_out(tuple(hand))
        assert second_task.answer("second", tuple(hand)) == answer
    again = second_task.Dealer(tokenizer, 5).deal("second", 300)[0]
    assert torch.equal(questions, again)


def test_the_kinds_have_seeds_and_sizes_of_their_own(tmp_path: Path) -> None:
    assert KINDS["new"].schedule(3).seed == 1003 and KINDS["part"].schedule(3).seed == 3
    found = names(5)
    assert [n for n in found if n[0] == "new"] == [("new", i) for i in range(10)]
    assert found[:2] == [("part", 0), ("unseen", 0)] and len(found) == 35
    few = names(3, quick=True)
    assert set(few) < set(found) and len(few) == 15 and "larger" not in dict(few)
    lab = Lab(tmp_path, Sizes(quick=True, hands=8))
    counts = {}
    for regime in ("new", "larger"):
        with lab.opened(regime, 0, "stage") as pair:
            from uvmerge.demo.train import build_model

            model = build_model(pair.tokenizer, pair.kind.width)
            counts[regime] = sum(p.numel() for n, p in model.named_parameters() if "layers" in n)
    assert counts["larger"] / counts["new"] == pytest.approx(4, rel=0.01)


def answered_pair(regime: str, seed: int, gain: float) -> Measured:
    """A pair whose line falls from (0.6, 0.9) to (1, 0.5); the tested edit lies above it by `gain`."""
    dice = random.Random(f"{regime}{seed}")
    others = len(KINDS[regime].module.OUT_OF_DOMAIN)

    def scored(inside: float, outside: float) -> dict[str, Any]:
        right = torch.tensor([
            [dice.random() < share for _ in range(400)] for share in (inside, *[outside] * others)
        ])  # fmt: skip
        given = Answered(torch.zeros(right.shape), right)
        return {**given.scores(), "right": given.digits()}

    values = {point(s): scored(0.6 + 0.4 * s, 0.9 - 0.4 * s) for s in LINE}
    for edit in (hypothesis.TESTED, *hypothesis.BESIDE):
        values[edit.name] = scored(0.8, 0.7 + gain)
    values[hypothesis.CONTROL.name] = scored(0.8, 0.7)
    return Measured(regime, seed, values)


def test_the_hypothesis_is_told_from_its_control_and_each_pair_has_an_interval() -> None:
    measured = [answered_pair("new", seed, 0.15) for seed in range(4)]
    measured += [answered_pair("second", seed, 0.0) for seed in range(4)]
    found = hypothesis.summarise(measured)
    by_regime = {(c["regime"], c["claim"]): c["verdict"] for c in found["claims"]}
    assert by_regime["new", hypothesis.SAID] == SEEN
    assert by_regime["second", hypothesis.SAID] == CANNOT_TELL
    alone = found["pairs_alone"]
    assert [one["regime"] for one in alone] == ["new"] * 4 + ["second"] * 4
    for one in alone[:4]:
        low, high = one["interval_95"]
        assert low < one["value"] < high and 0.02 < high - low < 0.3
        assert one["value"] == pytest.approx(0.15, abs=0.08)
    page = hypothesis.STAGE.section(found)
    assert "Written down on 2026-11-26" in page and "seed 1003" in page and "seed 2000" in page


def test_digits_say_which_rules_were_answered_right() -> None:
    right = torch.tensor([[True, False, True], [False, False, True], [True, False, False]])
    given = Answered(torch.zeros((3, 3)), right)
    assert given.digits() == "503"
    assert given.scores()["in_domain"] == pytest.approx(2 / 3)
    assert given.scores()["halves"][0]["out_of_domain"] == 0.5


def test_the_same_answers_have_no_margin() -> None:
    pair = answered_pair("new", 1, 0.0)
    same = Measured("new", 1, {**pair.values, "edit": pair.values[point(0.0)]})
    assert margin_of_pair(same, [point(0.0)], "edit")["value"] == 0


# Search.


def searched_pair(regime: str, seed: int, gains: tuple[float, ...]) -> Measured:
    """A pair whose trial i lies `gains[i]` above a line from (0, 1) to (1, 0)."""
    line = [
        {"name": point(s), "settings": {}, "search": [s, 1 - s], "report": [s, 1 - s]} for s in LINE
    ]
    trials = [
        {"name": f"trial-{i}", "settings": {"top": i}, "search": [0.55, 0.45 + gain]}
        for i, gain in enumerate(gains)
    ]
    trials[0]["report"] = [0.5, 0.5 + gains[0]]
    values: dict[str, Any] = {
        search.SEARCHED: {"line": line, "trials": trials, "beating": ["trial-0"]}
    }
    values |= {f"trial-{i}": [0.55, 0.4 + gain] for i, gain in enumerate(gains) if i}
    return Measured(regime, seed, values)


def test_what_a_search_chose_is_judged_on_the_other_half_and_on_other_pairs() -> None:
    gains = [(0.1, 0.2, 0.0), (0.1, -0.2, 0.05), (0.1, -0.1, 0.05)]
    found = search.summarise([searched_pair("part", i, g) for i, g in enumerate(gains)])
    assert [row["setting"] for row in found["rows"]] == ["trial-1", "trial-0", "trial-0"]
    assert found["rows"][0]["margin"] == pytest.approx(0.15)  # what it has left on the other half
    assert [row["settings"] for row in found["carried"]] == [{"top": 0}] * 3
    assert [row["margin"] for row in found["carried"]] == pytest.approx([0.15] * 3)
    assert [c["verdict"] for c in found["claims"]] == [SEEN, SEEN]
    page = search.STAGE.section(found)
    assert "| 0 | +0.150 | top 1 | +0.150 |" in page and "on 2 of 3 pairs" in page
    assert [row["chosen_on"] for row in search.STAGE.rows(found)][2:4] == [
        "the other half", "other pairs",
    ]  # fmt: skip


def test_where_no_setting_lies_above_the_line_interpolation_is_chosen() -> None:
    line = [((s, 1 - s), (s, 1 - s)) for s in LINE]
    assert chosen(line, {"trial-0": ((0.5, 0.4), (0.5, 0.9))}) == ("", 0.0)
    assert chosen(line, {}) == ("", 0.0)
    assert margin(line, ((0.5, 0.4), (0.6, 0.9))) == pytest.approx(0.4)
    assert leave_one_out([{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0, "c": 9.0}]) == [
        ("b", 0.0), ("a", 0.0),
    ]  # fmt: skip
    alone = search.summarise([searched_pair("part", 0, (-0.1, -0.2))])
    assert not alone["carried"] and alone["rows"][0]["setting"] == ""


def test_the_tasks_have_the_same_names() -> None:
    used = ("RULES", "IN_DOMAIN", "OUT_OF_DOMAIN", "HAND_SIZE", "deal", "encode", "answer",
            "unordered", "vocabulary")  # fmt: skip
    assert all(hasattr(task, name) for task in (sums, second_task) for name in used)
