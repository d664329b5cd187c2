"""A seeded part of the fuzzing of every parser; `benchmarks/fuzz.py` goes on with other numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import fuzz
from fuzzing.targets import TARGETS, Journals, Recipes, Target

EACH = 20_000 // len(TARGETS)
# What becomes of some inputs of each target: else its mutants test nothing.
OUTCOMES = {
    "header": {"accepted", "refused"},
    "index": {"accepted", "refused"},
    "config": {"accepted", "refused"},
    "recipe": {"accepted", "refused"},
    "mergekit": {"accepted", "refused"},
    "manifest": {"accepted", "refused"},
    "journal": {"accepted whole", "accepted in part", "accepted without a piece"},
    "factors": {"recalled", "made anew"},
}


@pytest.mark.parametrize("kind", TARGETS, ids=lambda kind: kind.name)
def test_damaged_files_are_refused_or_read_for_what_they_are(
    kind: type[Target],
) -> None:
    tally = fuzz.Tally()
    with fuzz.quick_folder() as folder, fuzz.guarded():
        fuzz.run(kind(Path(folder) / "target"), tally, EACH)
    assert tally.failures == []
    assert tally.inputs == sum(tally.outcomes.values()) == EACH
    assert OUTCOMES[kind.name] <= tally.outcomes.keys()


def test_an_input_is_determined_by_its_number(tmp_path: Path) -> None:
    first, again = Journals(tmp_path / "a"), Journals(tmp_path / "b")
    for number in range(20):
        dice = [fuzz.random.Random(f"{fuzz.SEED} {number}") for _ in range(2)]
        assert first.input(dice[0]) == again.input(dice[1])


class Broken(Recipes):
    """A parser that raises at some inputs and hangs at others."""

    mended = False

    def judge(self, data: bytes) -> str:
        while not self.mended and len(data) % 3 == 0:
            pass
        if not self.mended and len(data) % 3 == 1:
            raise KeyError("oops")
        return "accepted"


def test_an_exception_and_a_hang_are_failures_that_are_kept_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "LIMIT_S", 0.02)
    target, tally = Broken(tmp_path), fuzz.Tally()
    with fuzz.guarded():
        fuzz.run(target, tally, 12)
        errors = [failure["error"].split(" ")[0] for failure in tally.failures]
        assert set(errors) == {"KeyError", "TooSlow"}
        assert tally.outcomes["failed"] == len(errors)
        tally = fuzz.Tally.read(json.loads(json.dumps(tally.as_data())))
        target.mended = True
        fuzz.retried(target, tally)
    assert tally.failures == [] and tally.outcomes == {"accepted": 12}
    assert tally.inputs == 12


def test_the_results_are_of_every_target_and_without_failures() -> None:
    found = json.loads((fuzz.RESULTS / "fuzz.json").read_text(encoding="utf-8"))
    assert found["targets"].keys() == {kind.name for kind in TARGETS}
    assert found["failed"] == 0
    assert found["inputs"] == sum(each["inputs"] for each in found["targets"].values())
