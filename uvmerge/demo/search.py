"""`uvmerge search --demo`: the search on an embedded pair, with the answers to hands as evaluation.

The halves share no unordered hand, and intervals are clustered by unordered hand, because the answers to
the orders of one hand are alike. In domain is the rule that was fine-tuned on; out of domain, of each
hand, the share of the other rules under which it was answered right.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..output.places import Reference
from ..recipe.space import Space
from ..tasks.scores import Items, Score, score_of_items
from . import pair
from .evaluator import HANDS, SEED, answers

if TYPE_CHECKING:
    from ..api.search import SearchResult

METRICS = ("in_domain:max", "out_of_domain:max")

SPACE = """uvmerge: 1
steps:
  - project: {top: {from: 0, to: 0.95}, side: {any: [two, left, right]}, modules: attention}
  - project: {top: {from: 0, to: 0.95}, side: {any: [two, left, right]}, modules: mlp}
  - interpolate: {scale: {from: 0.2, to: 1.2}, modules: attention}
  - interpolate: {scale: {from: 0.2, to: 1.2}, modules: mlp}
  - interpolate: {scale: {from: 0, to: 1.2}, modules: "embeddings,head,norm,final-norm"}
"""
"""The space of the demo unless another one is named: projections and shares of each kind of module."""


def search_demo(
    out: Reference,
    space: Space | Reference | Mapping[str, Any] | None = None,
    *,
    regime: str = "part",
    hands: int = HANDS,
    base: Reference | None = None,
    finetuned: Reference | None = None,
    **settings: Any,
) -> SearchResult:
    """Search settings on an embedded pair.

    Args:
        out: OUTDIR of the search.
        space: as for `uvmerge.search`; by default `SPACE`.
        regime: which embedded pair, as `sums.REGIMES` tells them.
        hands: asked under each rule, on each half.
        base, finetuned: another pair that was trained on the same task.
        settings: as for `uvmerge.search`.

    Raises:
        UvmergeError: as `uvmerge.search`.
    """
    from ..api.search import search

    embedded = pair(regime) if base is None or finetuned is None else (base, finetuned)
    return search(
        Space.parse(SPACE, "the demo's space") if space is None else space,
        base or embedded[0], finetuned or embedded[1], out,
        evaluate=evaluation(hands), metrics=METRICS, **settings,
    )  # fmt: skip


def evaluation(hands: int = HANDS, seed: int = SEED) -> Callable[[Path, str], dict[str, Score]]:
    """The evaluation of the demo: of a checkpoint and a half, a score for both metrics."""

    def evaluate(checkpoint: Path, split: str) -> dict[str, Score]:
        given = answers(checkpoint, split=split, hands=hands, seed=seed)
        keys = [str(number).encode() for number in range(len(given.clusters))]
        items = Items(keys, given.clusters)
        return {
            "in_domain": score_of_items(items, given.in_domain),
            "out_of_domain": score_of_items(items, given.out_of_domain),
        }

    evaluate.identity = {"demo": "sums", "hands": hands, "seed": seed}  # type: ignore[attr-defined]
    return evaluate
