"""Repair: does an edit after the fact win back what fine-tuning lost (arXiv 2508.16546, 2509.12235)?

Every edit of uvmerge is compared with interpolation between the same two checkpoints at the same level
in domain, beside controls that have something else in the place of the base's leading directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .. import comparison, repair_page
from ..controls import Control, control_scores, controls
from ..edits import LINE, edited_scores, on_line, point
from ..lab import Pair
from ..repairs import LAYERS, LAYERS_BACK, PROJECT, RESTORE, VALUES, edits, parts
from ..sizes import Sizes
from ..stage import Measured, Stage
from ..verdicts import claim, summary

PUBLISHED = 0.7
"""The least of the 70–80 % that arXiv 2508.16546 recovers, by the directions of the leading 20 % or by
the first quarter of the layers."""
SMALL = 0.01
"""A change of accuracy that counts as none."""
_LEAST_LOST = 0.05  # of accuracy out of domain, for a share of it to mean something
Row = Mapping[str, Any]


def measure(pair: Pair) -> None:
    """Make and test every edit of the fine-tuned checkpoint of one pair, each once."""
    quick = pair.sizes.quick
    for scale in LINE:
        pair.once(point(scale), partial(on_line, pair, pair.finetuned, scale))
    for edit in (*edits(quick), *parts(quick)):
        pair.once(edit.name, partial(edited_scores, pair, pair.finetuned, edit))
    for control in controls(quick):
        pair.once(control.name, partial(control_scores, pair, pair.finetuned, control))


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """Rows against the line for each regime, with what is won back, and the claims."""
    found = rows_of(measured)
    return {"rows": found, "claims": claims(found)}


def rows_of(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row for each edit that was measured, for each regime."""
    found: list[dict[str, Any]] = []
    line = [point(scale) for scale in LINE]
    for regime in dict.fromkeys(each.regime for each in measured):
        pairs = [each for each in measured if each.regime == regime]
        rows = comparison.rows(regime, pairs, labels(), line)
        found += [{**row, **recovered(row["name"], pairs)} for row in rows]
    return found


def labels() -> dict[str, tuple[str, str]]:
    """Kind and label of every row, by the key in the journal."""
    found = {point(scale): ("line", f"interpolate --scale {scale}") for scale in LINE}
    found |= {edit.name: ("edit", edit.label) for edit in edits()}
    found[LAYERS_BACK] = ("control", "all layers back, embeddings and head kept")
    for name in (VALUES, "values-0.5"):
        found[name] = ("control", found[name][1])
    found |= {each.name: ("control", each.label) for each in controls()}
    return found | {edit.name: ("part", edit.label) for edit in parts()}


def recovered(name: str, pairs: Sequence[Measured]) -> dict[str, Any]:
    """Both readings of "recovered", of what the base has out of domain.

    `of_best`: OOD / OOD of the base. `of_lost`: (OOD − OOD of SFT) / (OOD of the base − OOD of SFT),
    None where a pair has hardly lost anything.
    """
    ours, best, tuned = (
        [pair.values[key]["out_of_domain"] for pair in pairs]
        for key in (name, point(LINE[0]), point(LINE[-1]))
    )
    lost = [b - t for b, t in zip(best, tuned, strict=True)]
    won = [o - t for o, t in zip(ours, tuned, strict=True)]
    of_best = [o / b for o, b in zip(ours, best, strict=True)] if min(best) > 0 else None
    of_lost = [w / n for w, n in zip(won, lost, strict=True)] if min(lost) >= _LEAST_LOST else None
    return {
        "of_best": None if of_best is None else summary(of_best),
        "of_lost": None if of_lost is None else summary(of_lost),
    }


def claims(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The claims of the papers on repair, for each regime in which their edits were measured."""
    found = []
    for regime in dict.fromkeys(row["regime"] for row in rows):
        by_name = {row["name"]: row for row in rows if row["regime"] == regime}
        for said, values in _CLAIMS:
            measured = values(by_name)
            if measured is not None:
                found.append(claim(said, regime, measured))
    return found


_Values = Callable[[Mapping[str, Row]], list[float] | None]


def _above_line(name: str) -> _Values:
    def values(rows: Mapping[str, Row]) -> list[float] | None:
        found: list[float] = rows[name]["at_equal_accuracy"]["values"]
        return found

    return values


def _more_than(name: str, other: str) -> _Values:
    def values(rows: Mapping[str, Row]) -> list[float] | None:
        ours, theirs = (rows[each]["at_equal_accuracy"]["values"] for each in (name, other))
        return [a - b for a, b in zip(ours, theirs, strict=True)]

    return values


def _recovers(name: str, reading: str) -> _Values:
    def values(rows: Mapping[str, Row]) -> list[float] | None:
        shares = rows[name][reading]
        return None if shares is None else [share - PUBLISHED for share in shares["values"]]

    return values


def _stays(rows: Mapping[str, Row]) -> list[float] | None:
    """What is left of one point when the accuracy out of domain has moved."""
    ours, tuned = (rows[name]["out_of_domain"]["values"] for name in (VALUES, point(LINE[-1])))
    return [SMALL - abs(a - b) for a, b in zip(ours, tuned, strict=True)]


_AT = "at equal accuracy in domain"
_NAMED = {
    RESTORE: "restoring the directions of the leading 20 %",
    LAYERS: "setting the first quarter of the layers back",
    PROJECT: "`project`, two-sided at 50 %,",
}
_CLAIMS: list[tuple[str, _Values]] = [
    *(
        (f"{said[0].upper()}{said[1:]} has more out of domain than interpolation {_AT}.",
         _above_line(name))
        for name, said in _NAMED.items()
    ),
    *(
        (f"{said[0].upper()}{said[1:]} has at least 70 % {words} out of domain.",
         _recovers(name, reading))
        for name, said in list(_NAMED.items())[:2]
        for reading, words in (("of_best", "of what the base has"), ("of_lost", "of the loss won back"))
    ),
    *(
        (f"`project` at 50 % lies higher above the line than the same with {words}.",
         _more_than(PROJECT, Control("project", directions, 0.5).name))
        for directions, words in (
            ("random", "random directions"), ("stranger", "the leading directions of a stranger"),
        )
    ),
    ("Setting the leading 20 % of the singular values back, and no direction, moves the accuracy out of"
     " domain by less than one point.", _stays),
]  # fmt: skip


def rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Flat rows of the summary for the CSV file."""
    flat = comparison.flat(found)
    for one, row in zip(flat, found["rows"], strict=True):
        for reading in ("of_best", "of_lost"):
            said = row[reading] or {}
            low, high = said.get("interval_95") or (None, None)
            one |= {reading: said.get("mean"), f"{reading}_low": low, f"{reading}_high": high}
    return flat


def draw(found: Mapping[str, Any]) -> Any:
    """The figure of the stage."""
    from ..figures import against_line

    return against_line(found)


def sized(sizes: Sizes) -> str:
    """How many edits are made, and of what."""
    made, apart, beside = (len(each(sizes.quick)) for each in (edits, parts, controls))
    return (
        f"Of the fine-tuned checkpoint of each pair: {len(LINE)} points of the line, {made} edits,"
        f" {apart} of parts of the model, and {beside} controls with other directions."
    )


STAGE = Stage(
    name="repair",
    order=20,
    title="Repair",
    regimes=("part", "unseen", "well"),
    measure=measure,
    summarise=summarise,
    section=repair_page.section,
    draw=draw,
    rows=rows,
    sized=sized,
)
