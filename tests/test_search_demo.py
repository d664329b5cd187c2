"""The search on an embedded pair: its own evaluation, by halves that share no unordered hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from command import uv
from searching import digest_of

import uvmerge
from uvmerge.demo import pair, sums
from uvmerge.demo.evaluator import Answers
from uvmerge.demo.search import METRICS, SPACE, evaluation
from uvmerge.recipe.space import Space

SMALL = {
    "uvmerge": 1,
    "steps": [{"interpolate": {"scale": {"from": 0.2, "to": 0.4}, "layers": "0"}}],
}


def test_the_space_of_the_demo_can_be_read() -> None:
    space = Space.parse(SPACE)
    assert len(space.dimensions) == 7
    assert {space.template.steps[i].operation.name for i in range(5)} == {"project", "interpolate"}


def test_the_halves_share_no_hand_and_clusters_are_unordered_hands() -> None:
    evaluate = evaluation(hands=40)
    base, _ = pair()
    halves = [evaluate(base, half) for half in ("search", "report")]
    clusters = [set(half["in_domain"].items.clusters) for half in halves]  # type: ignore[union-attr,arg-type]
    assert not clusters[0] & clusters[1]
    assert {sums.half_of(tuple(c.split())) for c in clusters[1]} == {"report"}
    assert 0.3 < (halves[0]["in_domain"].value or 0) < 1 and METRICS[0] == "in_domain:max"


@pytest.fixture
def quick() -> Iterator[mock.Mock]:
    """Answers that depend on the checkpoint's bytes, without a model."""

    def answers(checkpoint: Path, *, split: str, hands: int, seed: int) -> Answers:
        dealt = sums.deal(hands, seed, split)
        generator = np.random.default_rng([int(digest_of(checkpoint)[:12], 16), split == "search"])
        right = {rule: generator.random(hands) < 0.7 for rule in sums.RULES}
        return Answers(tuple(map(sums.unordered, dealt)), right)

    with mock.patch("uvmerge.demo.search.answers", side_effect=answers) as patched:
        yield patched


def test_the_command_needs_a_folder_alone(
    quick: mock.Mock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(json.dumps(SMALL))
    words = ["search", "--demo", tmp_path / "found", space, "--trials", 2, "--json"]
    shown = uv(capsys, *words)
    assert shown.code == 0, shown.err
    data = json.loads(shown.out)
    assert [m["name"] for m in data["metrics"]] == ["in_domain", "out_of_domain"]
    assert data["has_halves"] and data["tried"] == 2
    items, clusters = data["items"]["in_domain"]
    assert items == 1000 and clusters < items
    asked = quick.call_count
    assert uv(capsys, *words).out == shown.out and quick.call_count == asked


def test_other_pairs_of_the_task_can_be_searched(tmp_path: Path) -> None:
    base, finetuned = pair("unseen")
    with mock.patch("uvmerge.api.search.search") as search:
        for given in ({"base": base, "finetuned": finetuned}, {"regime": "unseen"}):
            uvmerge.search_demo(tmp_path, SMALL, hands=30, trials=1, **given)
    one, same = search.call_args_list
    assert one.args == same.args == (SMALL, base, finetuned, tmp_path)
    for call in (one, same):
        assert call.kwargs.pop("evaluate").identity["hands"] == 30
        assert call.kwargs == {"metrics": METRICS, "trials": 1}
