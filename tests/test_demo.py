"""The embedded pair and `uvmerge demo`: forgetting and repair, measured here and now."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import faults
import pytest
from command import uv

from uvmerge.demo import pair, run as demo, sums
from uvmerge.errors import UsageError
from uvmerge.tasks.statistics import wilson


def test_the_sums_follow_the_rules() -> None:
    hand = ("A", "10", "J", "K")
    assert sums.answer(sums.IN_DOMAIN, hand) == "31"
    assert sums.answer(sums.OUT_OF_DOMAIN, hand) == "35"
    assert sums.encode(sums.IN_DOMAIN, hand) == "ten A 10 J K ="


def test_hands_are_held_out_fresh_by_seed_and_hold_a_face_card() -> None:
    hands = sums.deal(200, seed=3)
    assert hands == sums.deal(200, seed=3) != sums.deal(200, seed=4)
    assert all(sums.is_held_out(hand) and set(hand) & set(sums.FACES) for hand in hands)
    trained = sums.hands_of(held_out=False, face_required=False)
    assert not {tuple(sorted(h)) for h in trained} & {tuple(sorted(h)) for h in hands}


def test_the_wilson_interval_is_the_published_one() -> None:
    # Wilson 1927 by hand for 8 of 10: centre (p + z²/2n)/(1 + z²/n), half-width z√(…)/(1 + z²/n)
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.49016, abs=1e-4) and high == pytest.approx(0.94332, abs=1e-4)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1


def test_the_pair_is_small_and_names_nobody() -> None:
    for folder in pair():
        assert (folder / "model.safetensors").stat().st_size < 2_000_000
        for path in folder.glob("*.json"):
            assert "/" not in json.loads(path.read_text()).get("_name_or_path", "")


def test_the_demo_shows_forgetting_and_its_repair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "demo", tmp_path / "out", "--hands", "500", "--json")
    assert shown.code == 0
    rows = {row["name"]: row for row in json.loads(shown.out)["rows"]}

    def right(name: str, domain: str = "out_of_domain") -> float:
        return float(rows[name][domain]["accuracy"])

    assert right("base") > 0.9 and right("base", "in_domain") > 0.9
    assert right("finetuned", "in_domain") > 0.95 and right("finetuned") < right("base") - 0.3
    for repaired in ("restore-0.2", "reset-layers-0.25", "interpolate-0.3"):
        assert (
            rows[repaired]["out_of_domain"]["wilson_95"][0]
            > rows["finetuned"]["out_of_domain"]["wilson_95"][1]
        )
    assert abs(right("values-0.2") - right("finetuned")) < 0.1
    assert {"report.md", "report.json", "base", "finetuned"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    weights = json.loads((tmp_path / "out" / "diff" / "report.json").read_text())
    assert [c["verdict"] for c in weights["checkpoints"]] == ["related"] * 3
    words = ["--load", "--against", tmp_path / "out" / "finetuned"]
    assert uv(capsys, "check", tmp_path / "out" / "restore-0.2", *words).code == 0
    other = uv(capsys, "demo", tmp_path / "out")
    assert other.code == 2 and "already holds report.json, report.md" in other.err


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that makes two checkpoints and asks them nothing."""
    shown, made = demo._SHOWN, demo._jobs()
    monkeypatch.setattr(demo, "_jobs", lambda: [job for job in made if job.name in shown])
    monkeypatch.setattr(sums, "accuracies", lambda folder, rules, hands: [7, 5])


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


@pytest.mark.parametrize("what", ["base", "restore-0.2", "report.md"])
@pytest.mark.usefixtures("short")
def test_a_demo_never_writes_over_what_is_not_its_own(what: str, tmp_path: Path) -> None:
    place = tmp_path / "out" / what
    place.mkdir(parents=True)
    (place / "config.json").write_text("mine")
    with pytest.raises(UsageError, match=f"already holds {what}"):
        demo.run(tmp_path / "out", hands=100)
    assert faults.contents(tmp_path / "out") == {f"{what}/config.json": b"mine"}


def test_the_training_script_writes_a_pair_that_loads(tmp_path: Path) -> None:
    import transformers

    from uvmerge.demo import train

    train.main([str(tmp_path), "--base-steps", "3", "--finetune-steps", "2"])
    for name in ("base", "finetuned"):
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert sum(p.numel() for p in model.parameters()) == 807_296
