"""The report: true sentences, a page that holds what it must and nothing that acts, whole files."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import itertools
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import faults
import pytest
import torch
from findings import ROLES, base_matrix, compare, entry, model, moved, pair

from uvmerge import report
from uvmerge.measure.findings import Behaviour, Compared, Entry, Findings, Other, Pair
from uvmerge.measure.null import RandomSubspaces
from uvmerge.report.card import _card, picture_of
from uvmerge.report.colours import GOOD, SEQUENTIAL, mixed
from uvmerge.report.column import Place
from uvmerge.report.columns import shown_in
from uvmerge.report.details import _band, chosen
from uvmerge.report.format import number, percent
from uvmerge.report.heat import Scale, picture
from uvmerge.report.lead import lead
from uvmerge.report.rows import header
from uvmerge.report.summary import _is_shown, summary
from uvmerge.report.svg import Axis, Line, chart
from uvmerge.report.what_now import what_now

HOSTILE = "model.layers.0.<script>alert(1)</script>.\x1b[31m\"onload='x'.q_proj.weight"
VOID = {"meta", "link", "img", "br", "wbr"}


@pytest.fixture(scope="module")
def related() -> Findings:
    (entries,) = model(lambda W, g: [moved(W, 1.0, g)])
    behaviour = Behaviour(64, 8123, 0.12, 0.011, 2.1, 1.9, 0.83, 0.79)
    others = (
        Other("model.norm.weight", "final-norm", 0.002),
        Other("lm_head.weight", "head", None),
    )
    compared = Compared("org/tuned", "abc123", entries, others, ("names aligned",), behaviour)
    return Findings(
        "org/base", "def456", (compared,), (), {"top": 0.2}, {"uvmerge": "0.1.0"}, {"total": 1.5}
    )


@pytest.fixture(scope="module")
def unrelated() -> Findings:
    (entries,) = model(lambda W, g: [base_matrix(*W.shape, g)])
    return pair(*entries)


@pytest.fixture(scope="module")
def trajectory() -> Findings:
    """Five checkpoints, each farther than the one before but for the last, which turns back."""

    def steps(W: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        direction = moved(W, 1.0, generator) - W
        return [W + scale * direction for scale in (0.5, 1.0, 1.5, 2.0, 0.6)]

    compared = tuple(
        Compared(f"checkpoint-{i}", None, entries) for i, entries in enumerate(model(steps))
    )
    place = (0.0, 0.5, 1.0, 1.5, 2.0, 0.6)
    apart = {(i, j): abs(place[i] - place[j]) for i, j in itertools.combinations(range(6), 2)}
    pairs = tuple(Pair(i, j, 0.1 * d, 0.08 * d, 0.02 * d) for (i, j), d in apart.items())
    return Findings("org/base", None, compared, pairs)


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> list[str]:
        return [v for _, found in self.tags for k, v in found.items() if k in names and v]


def said(findings: Findings) -> str:
    return " ".join(report.headline(findings))


# --- sentences ---------------------------------------------------------------------------------


def test_the_first_sentence_is_the_verdict_with_its_counts(related: Findings) -> None:
    first = report.headline(related)[0]
    assert first.startswith("org/tuned is related to org/base")
    assert "14 matrices and 2 other tensors were compared" in first
    assert "no matrix is identical" in first
    assert "1 other tensor of another shape or kind" in first


def test_sentences_carry_the_numbers_behind_them(related: Findings) -> None:
    entries = related.compared[0].entries
    sizes = sorted(e.relative for e in entries)
    left = sum(e.measures.left.mean for e in entries if e.measures) / len(entries)
    inside = sum(e.measures.change.inside for e in entries if e.measures) / len(entries)
    text = said(related)
    assert percent((sizes[6] + sizes[7]) / 2) in text
    assert f"({percent(sizes[0])} to {percent(sizes[-1])})" in text
    assert f"left ones by {number(math.degrees(left))}° (independent: " in text
    assert f"Of the change's energy {percent(inside)} lies in" in text
    assert "0.12 ± 0.011" in text


def test_the_most_turned_role_and_layer_are_named() -> None:
    generator = torch.Generator().manual_seed(1)
    entries = []
    for layer, role, scale in (
        (0, "q_proj", 1.0),
        (0, "o_proj", 0.1),
        (1, "q_proj", 2.0),
        (1, "o_proj", 0.2),
    ):
        W = base_matrix(40, 40, generator)
        entries.append(entry(compare(W, [moved(W, scale, generator)], 8)[0], layer, role))
    text = said(pair(*entries))
    assert "by role, q_proj (" in text
    assert "least o_proj" in text
    assert "by layer, layer 1 (" in text
    assert "by module" not in text  # there is one only


def test_what_turned_alike_did_not_turn_most() -> None:
    generator = torch.Generator().manual_seed(1)
    W = base_matrix(40, 40, generator)
    found = compare(W, [moved(W, 1.0, generator)], 8)[0]
    text = said(pair(entry(found, 0), entry(found, 1)))
    assert "Vectors turned most" not in text
    assert "Every layer turned alike (" in text


def test_what_chance_gives_is_not_in_the_table_nor_most_turned() -> None:
    generator = torch.Generator().manual_seed(9)
    W = base_matrix(40, 40, generator)
    related = compare(W, [moved(W, 1.0, generator)], 8)[0]
    strange = compare(W, [base_matrix(40, 40, generator)], 8)[0]
    assert strange.is_chance
    entries = [entry(related, 0), entry(related, 1), entry(strange, 2)]
    without, beside = (summary(pair(*some)).split("\n\n")[1] for some in (entries[:2], entries))
    assert beside == without
    assert "model.layers.2" not in summary(pair(*entries))


def cells_of(text: str, row: str) -> dict[str, str]:
    """The cells of one row of the terminal's table, by the head of their column."""
    lines = text.splitlines()
    (head,) = (line.removeprefix("mean of").split() for line in lines if line.startswith("mean of"))
    (cells,) = (line.split()[1:] for line in lines if line.startswith(f"{row} "))
    return dict(zip(head, cells, strict=True))


def test_the_table_of_an_unrelated_pair_does_not_interpret(unrelated: Findings) -> None:
    cells = cells_of(summary(unrelated), "all")
    entries = unrelated.compared[-1].entries
    for column in shown_in(Place.TERMINAL):
        says_something = any(_is_shown(column, each) for each in entries)
        assert (cells[column.head.replace(" ", "-")] != "-") is says_something, column.key
    assert cells["change"] != "-" != cells["angle-left"]
    assert cells["values"] == cells["in-block"] == "-"


def test_a_change_that_may_be_rounding_has_no_place_unless_it_has_structure() -> None:
    generator = torch.Generator().manual_seed(10)
    noise, planted = [], []
    for layer, scale in enumerate((1e-4, 5e-4)):
        W = base_matrix(96, 96, generator)
        change = torch.randn(96, 96, dtype=torch.float64, generator=generator)
        change *= scale * W.norm() / change.norm()
        U, S, Vh = torch.linalg.svd(W)
        inside = scale * U[:, :19] * S[:19] @ Vh[:19]
        for entries, after in ((noise, W + change), (planted, W + inside)):
            entries.append(entry(compare(W, [after], 19)[0], layer, dtype="BF16"))
    for entries, placed in ((noise, False), (planted, True)):
        findings = pair(*entries)
        assert "may come from rounding alone" in said(findings)
        assert ("most turned" in summary(findings)) is placed
        assert findings.compared[0].says_where is placed
    assert "Vectors turned most" not in said(pair(*noise))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((0, 0), "No intruders"),
        ((2, 0), ", in 1 of 2 matrices: model.layers.0.q_proj.weight."),
        ((1, 1), ", in 2 of 2 matrices, one in each."),
        ((1, 3), ", in 2 of 2 matrices, most in model.layers.1.q_proj.weight: 3."),
    ],
)
def test_intruders_are_counted_over_all_matrices(counts: tuple[int, int], words: str) -> None:
    generator = torch.Generator().manual_seed(11)
    W = base_matrix(40, 40, generator)
    found = compare(W, [moved(W, 1.0, generator)], 8)[0]
    entries = [
        entry(dataclasses.replace(found, intruders=count), layer)
        for layer, count in enumerate(counts)
    ]
    assert words in said(pair(*entries))


def test_the_caution_stands_once(related: Findings, trajectory: Findings) -> None:
    for findings in (related, trajectory):
        assert said(findings).count("2509.04259") == 1
        assert report.render(findings).count("2509.04259") == 1


def test_an_unrelated_pair_is_not_interpreted(unrelated: Findings) -> None:
    sentences = report.headline(unrelated)
    assert sentences[0].startswith("tuned is unrelated to base: in 14 of 14 matrices")
    assert len(sentences) == 1
    assert "°" not in said(unrelated)


def test_identical_checkpoints_are_said_to_be_so() -> None:
    same = pair(entry(None), entry(None, 1), others=(Other("n", "norm", 0.0),))
    assert report.headline(same) == [
        "tuned is identical to base: no tensor that was compared changed. 2 matrices and 1 other tensor"
        " were compared; 2 matrices are identical; none had to be left out."
    ]


def test_nothing_in_common_is_not_called_identical() -> None:
    assert said(pair()) == "Nothing of tuned could be compared with base: they share no tensor."


def test_nothing_measured_is_not_called_related() -> None:
    text = said(pair(entry(None, state="nonfinite")))
    assert "related to" not in text
    assert "No matrix of tuned could be measured" in text
    assert "1 matrix with NaN or Inf" in text


def test_identical_matrices_beside_a_changed_norm() -> None:
    text = said(pair(entry(None), others=(Other("norm.weight", "norm", 0.01),)))
    assert "All matrices of tuned that could be compared are identical" in text
    assert "1 changed, norm.weight by 1 %" in text
    assert "°" not in text


def test_one_matrix_has_no_median_and_no_most() -> None:
    generator = torch.Generator().manual_seed(2)
    W = base_matrix(40, 40, generator)
    text = said(pair(entry(compare(W, [moved(W, 1.0, generator)], 8)[0])))
    assert "1 matrix and 0 other tensors were compared" in text
    assert "median matrix" not in text
    assert "Vectors turned most" not in text


def test_rank_zero_speaks_of_no_vectors() -> None:
    generator = torch.Generator().manual_seed(3)
    W = base_matrix(40, 40, generator)
    text = said(pair(entry(compare(W, [moved(W, 1.0, generator)], 0)[0])))
    assert "No singular vectors were compared: k is 0." in text
    for word in ("°", "intruder", "block", "singular values changed"):
        assert word not in text
    W = base_matrix(40, 40, generator)
    shown = summary(pair(entry(compare(W, [moved(W, 1.0, generator)], 0)[0])))
    assert "most turned" not in shown
    cells = cells_of(shown, "q_proj")
    assert cells.pop("change") != "-"
    assert {
        cells[head] for head in ("angle-left", "angle-right", "values", "in-block", "chance")
    } == {"-"}


def test_angles_of_the_full_rank_say_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    W = base_matrix(40, 40, generator)
    text = said(pair(entry(compare(W, [moved(W, 1.0, generator)], 40)[0])))
    assert "On 2 of 2 sides the angles say nothing" in text
    assert "turned" not in text
    assert "nothing that chance would not show" in text  # all of it lies in the block


def test_a_side_in_the_null_band_is_no_finding() -> None:
    generator = torch.Generator().manual_seed(5)
    W = base_matrix(40, 40, generator)
    Q = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64, generator=generator))[0]
    found = dataclasses.replace(
        compare(W, [moved(W, 1.0, generator)], 8)[0], left=compare(W, [Q @ W], 8)[0].left
    )
    text = said(pair(entry(found)))
    assert (
        "On 1 of 2 sides the leading vectors are no nearer to the base's than independent" in text
    )
    assert "left ones" not in text
    assert "right ones" in text


def test_a_structureless_change_is_not_placed() -> None:
    generator = torch.Generator().manual_seed(6)
    W = base_matrix(96, 96, generator)
    noise = torch.randn(96, 96, dtype=torch.float64, generator=generator)
    text = said(pair(entry(compare(W, [W + 0.001 * noise], 20)[0])))
    assert "nothing that chance would not show" in text
    assert "diag" not in text


def test_a_change_planted_in_the_block_is_placed() -> None:
    generator = torch.Generator().manual_seed(6)
    W = base_matrix(40, 40, generator)
    U, S, Vh = torch.linalg.svd(W)
    after = W + 0.1 * U[:, :8] * S[:8] @ Vh[:8]
    found = compare(W, [after], 8)[0]
    text = said(pair(entry(found)))
    assert "more than chance in 1 of 1 matrix" in text
    chance = percent(found.change.structureless / 8)
    assert f"100 % of all changes values (diag; {chance} without structure)" in text


def test_a_change_like_rounding_may_come_from_it() -> None:
    generator = torch.Generator().manual_seed(7)
    W = base_matrix(40, 40, generator)
    found = compare(
        W, [W * (1 + 0.001 * torch.randn(40, 40, dtype=torch.float64, generator=generator))], 8
    )[0]
    assert "may come from rounding alone" in said(pair(entry(found, dtype="BF16")))
    assert "rounding" not in said(pair(entry(found, dtype="F32")))


def test_a_loose_cut_is_pointed_out_and_a_firm_one_not() -> None:
    generator = torch.Generator().manual_seed(8)
    U, _, Vh = torch.linalg.svd(torch.randn(40, 40, dtype=torch.float64, generator=generator))
    for gap, loose in ((1e-4, True), (0.5, False)):
        values = torch.cat([torch.linspace(3, 2, 8), torch.linspace(2 - gap, 0.1, 32)]).double()
        W = U * values @ Vh
        found = compare(W, [moved(W, 0.1, generator)], 8)[0]
        assert ("gap at the cut is smaller" in said(pair(entry(found)))) is loose


def test_a_base_of_zeros_has_no_relative_size() -> None:
    W = torch.zeros(40, 40, dtype=torch.float64)
    found = compare(W, [torch.eye(40, dtype=torch.float64)], 8)[0]
    findings = pair(entry(found))
    assert "inf" not in said(findings)
    assert "nan" not in said(findings).lower()
    Page(report.render(findings))


def test_a_trajectory_that_turns_back_is_seen(trajectory: Findings) -> None:
    text = said(trajectory)
    assert text.startswith("All 5 checkpoints are related to org/base.")
    assert (
        "turns the leading vectors back towards checkpoint-0 (chordal distance left 0.15 → 0.01"
        in text
    )
    straight = dataclasses.replace(trajectory, pairs=tuple(
        dataclasses.replace(p, left=0.1 * (p.second - p.first), right=0.1 * (p.second - p.first))
        for p in trajectory.pairs
    ))  # fmt: skip
    one_side = dataclasses.replace(trajectory, pairs=tuple(
        dataclasses.replace(p, right=0.1 * (p.second - p.first)) for p in trajectory.pairs
    ))  # fmt: skip
    for findings in (straight, one_side):
        assert "does not turn back towards the base or an earlier checkpoint" in said(findings)


def test_an_unrelated_checkpoint_of_a_trajectory_is_named(
    trajectory: Findings, unrelated: Findings
) -> None:
    stray = dataclasses.replace(unrelated.compared[0], label="stray")
    mixed = dataclasses.replace(trajectory, compared=(*trajectory.compared[:4], stray))
    sentences = report.headline(mixed)
    assert "unrelated: stray" in sentences[0]
    assert not any("turn back" in s or "turns the leading" in s for s in sentences)


def test_sentences_are_inert() -> None:
    findings = pair(
        entry(None, name=HOSTILE), label="\x1b[31mred\u202e", others=(Other(HOSTILE, "x", 0.5),)
    )
    assert all(sentence.isprintable() for sentence in report.headline(findings))


# --- the page ----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["related", "unrelated", "trajectory"])
def test_pages_are_balanced_and_fetch_nothing(which: str, request: pytest.FixtureRequest) -> None:
    findings = request.getfixturevalue(which)
    for text in (report.render(findings), report.figure(findings)):
        page = Page(text)
        assert not {"script", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
        assert not any(name.startswith("on") for _, found in page.tags for name in found)
        for address in page.values("src", "href", "xlink:href"):
            assert address.startswith(("#", "data:image/")), address
        assert "@import" not in text
        assert not re.search(r"url\((?!#)", text)


def test_the_policy_forbids_everything_but_what_is_inside(related: Findings) -> None:
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert policy in Page(report.render(related)).values("content")


@pytest.mark.parametrize("which", ["related", "trajectory"])
def test_links_lead_somewhere_and_ids_are_unique(
    which: str, request: pytest.FixtureRequest
) -> None:
    page = Page(report.render(request.getfixturevalue(which)))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = [address[1:] for address in page.values("href") if address.startswith("#")]
    assert set(links) <= set(ids)
    assert {f"m{i}" for i in range(14)} <= set(links)


def test_names_from_outside_are_inert_on_the_page() -> None:
    (entries,) = model(lambda W, g: [moved(W, 1.0, g)], layers=1)
    hostile = dataclasses.replace(entries[0], name=HOSTILE, role="<b>q</b>", module="<i>m</i>")
    compared = Compared(
        HOSTILE, "<b>", (hostile, *entries[1:]), (Other(HOSTILE, "<x>", 0.5), Other(HOSTILE, "x", None)),
        (HOSTILE,), Behaviour(1, 2, 0.1, None, 1.0, 1.0, 0.5, 0.5),
    )  # fmt: skip
    findings = Findings(
        HOSTILE, "<c>", (compared, compared), (Pair(0, 1, 0.1, 0.1, 0.1),),
        {HOSTILE: HOSTILE}, {"<v>": "<w>"}, {"<s>": 1.0},
    )  # fmt: skip
    for text in (report.render(findings), report.figure(findings)):
        page = Page(text)
        assert not {"script", "x", "c", "v", "w", "s"} & {tag for tag, _ in page.tags}
        assert "<script" not in text
        assert "\x1b" not in text
        assert "alert(1)" in page.text  # it is shown, not dropped
        assert not any(name.startswith("on") for _, found in page.tags for name in found)


def test_the_page_shows_what_it_must(related: Findings) -> None:
    text = Page(report.render(related)).text
    for sentence in report.headline(related):
        assert sentence in text.replace("\xa0", " ")
    for words in (
        "Relative change of the weights", "Mean angle, left", "Mean angle, right", "In the leading block",
        "What now", "Turn by position in the spectrum", "Turn by position and layer", "Layer 1",
        "(diag)", "(rot)", "Gap at the cut", "Most moved matrices", "Leading singular values",
        "Principal angles", "Singular values of the change", "Change in leading directions",
        "What these figures mean", "org/base at def456", "names aligned", "uvmerge 0.1.0", "top 0.2",
        "KL from base", "lm_head.weight",
    ):  # fmt: skip
        assert words in text, words


def test_a_section_for_each_layer_holds_its_matrices_and_the_most_moved_is_open(
    related: Findings,
) -> None:
    text = report.render(related)
    page = Page(text)
    folded = [found for tag, found in page.tags if tag == "details"]
    matrices = [found for found in folded if re.fullmatch(r"m\d+d", found.get("id") or "")]
    assert len(matrices) == 14
    assert [found["id"] for found in matrices if "open" in found] == ["m0d"]
    assert sum("open" in found for found in folded) == 2  # with its layer
    for layer in (0, 1):
        (section,) = re.findall(rf"<b>Layer {layer}</b>.*?(?=<b>Layer|<h2)", text)
        names = re.findall(r"<summary><b>(model.*?)</b>", section)
        assert sorted(names) == sorted(
            e.name for e in related.compared[0].measured if e.layer == layer
        )
    most = related.compared[0].most_turned_first[0].name
    assert re.search(rf'id="m0d" open><summary><b>{re.escape(most)}</b>', text)


# --- the first screen ----------------------------------------------------------------------------


def test_the_first_screen_says_what_where_how_sure_and_what_now(related: Findings) -> None:
    text = report.render(related)
    first = text[text.index('<div class="first">') : text.index("<details")]
    order = ['class="lead', 'class="tiles"', 'class="map"', 'class="now"']
    places = [first.index(each) for each in order]
    assert places == sorted(places)
    sentence = Page(first[places[0] - 3 : places[1] - 5]).text.replace("\xa0", " ")
    assert re.fullmatch(
        r"org/tuned moved from org/base by [\d.]+ % of its norm, most in layer \d \([\d.]+ %\);"
        r" [\d.]+ % of the change lies in the base's leading directions, as chance gives\.",
        sentence,
    ), sentence
    assert first.count('class="tile"') == 4 and first.count('stroke="#000" stroke-width="2"') == 4
    assert first.count('class="heat"') == 1
    step = what_now(related, "org/base", "org/tuned")
    assert step.commands
    shown = Page(first[places[3] - 9 : first.rindex("</section>") + 10]).text.replace("\xa0", " ")
    for words in (step.sentence[1:], *(command.line for command in step.commands)):
        assert words in shown


def test_the_first_sentence_calls_nothing_a_finding_that_is_none(
    unrelated: Findings, trajectory: Findings
) -> None:
    assert lead(unrelated).startswith("tuned is unrelated to base: 14 of 14 matrices")
    assert lead(pair(entry(None))).startswith("tuned is identical to base")
    norm = pair(entry(None), others=(Other("norm.weight", "norm", 0.01),))
    assert "1 other tensor changed" in lead(norm)
    assert lead(trajectory).startswith(
        "checkpoint-4, the last of 5 checkpoints, moved from org/base"
    )
    generator = torch.Generator().manual_seed(6)
    entries = []
    for layer in range(2):
        W = base_matrix(96, 96, generator)
        noise = W * (1 + 0.001 * torch.randn(96, 96, dtype=torch.float64, generator=generator))
        entries.append(entry(compare(W, [noise], 20)[0], layer, dtype="BF16"))
    said_first = lead(pair(*entries))
    assert "no more than rounding makes" in said_first and "most in" not in said_first
    assert "as chance gives" in said_first and "times" not in said_first
    text = report.render(pair(*entries))
    tiles = text[text.index('class="tiles"') : text.index('class="map"')]
    assert tiles.count("url(#hatch)") == 2  # the size, and the share in the leading block
    assert "times" not in tiles


def test_no_column_of_the_page_is_wider_than_a_phone(related: Findings) -> None:
    for text in (report.render(related), report.figure(related)):
        narrow = re.findall(r"minmax\((?:0,|min\(100%,)", text)
        assert narrow and len(narrow) == text.count("minmax(")
    page = report.render(related)
    for each in ("svg{display:block;max-width:100%", ".scroll{overflow-x:auto}", "@media print"):
        assert each in page
    assert page.count('<table class="wide"') == page.count(
        '<div class="scroll"><table class="wide"'
    )


def test_a_map_in_which_much_is_good_has_its_own_colours_and_says_so(related: Findings) -> None:
    text = report.render(related)
    maps = [each for each in text.split("<figure>") if 'class="heat"' in each]
    good = [each for each in maps if "much is good" in each]
    assert [each.startswith("<figcaption>Gap at the cut") for each in good] == [True]
    darkest = "#{:02x}{:02x}{:02x}".format(*mixed(GOOD, 39.5 / 40))
    assert [darkest in each for each in maps] == [each in good for each in maps]


def test_a_small_map_has_no_numbers_and_the_large_one_has(related: Findings) -> None:
    text = report.render(related)
    maps = [each.split("</svg>")[0] for each in text.split("<figure>") if 'class="heat"' in each]
    large = [each for each in maps if "<figcaption>Relative change of the weights" in each]
    assert len(large) == 1 and large[0].count("</text><title>") == 14
    small = text[text.index('<div class="small">') : text.index("What these maps show")]
    assert small.count("<figcaption>") == len(shown_in(Place.MAP)) - 1
    assert "</text><title>" not in small


def test_turn_by_position_is_drawn_in_degrees_with_chance(related: Findings) -> None:
    text = report.render(related)
    drawn = text[text.index("Turn by position and layer") :]
    turns = [
        getattr(e.measures, side).tenths[0]
        for e in related.compared[0].measured
        for side in ("left", "right")
        if e.layer == 1
    ]
    assert f"layer 1, tenth 1: {number(math.degrees(sum(turns) / len(turns)))}°" in drawn
    assert "the grey band is what independent matrices show" in text


def test_cells_within_chance_are_hatched(related: Findings, unrelated: Findings) -> None:
    def hatched(findings: Findings) -> int:
        page = report.figure(findings)
        angles = page[page.index("Mean angle, left") : page.index("Relative change of singular")]
        return angles.count('"#hatched"')

    assert hatched(unrelated) == 28
    assert report.figure(unrelated).count('"#hatched"') == len(shown_in(Place.MAP)) * 14
    assert hatched(related) == 0


def test_experts_of_one_place_are_averaged() -> None:
    (entries,) = model(lambda W, g: [moved(W, 1.0, g)], layers=1)
    twice = dataclasses.replace(entries[0], name="expert 1")
    zero = entry(None, 0, "q_proj", name="expert 2")
    text = report.figure(pair(entries[0], twice, zero))
    mean = entries[0].relative * 2 / 3
    assert f"layer 0, q_proj (3 matrices): {number(mean)}, identical" in text


def test_a_trajectory_has_curves_distances_and_the_last_matrices(trajectory: Findings) -> None:
    text = report.render(trajectory)
    words = Page(text).text
    assert "Over the checkpoints" in words
    assert "Chordal distance, left, each two" in words
    assert "checkpoints 3 and 4: 0.05" in words
    assert "of the last checkpoint, checkpoint-4" in words
    at = text.index('id="m0d"')
    first = text[at : text.index("</details>", at)]
    # The spectra, the two sides and |diag C| of four other checkpoints.
    assert first.count(" thin") == 16 and "|diag C|" in first
    assert text.count("Angles of the leading spans, ") == 4  # of each side: caption and label


def test_224_matrices_stay_under_two_megabytes() -> None:
    generator = torch.Generator().manual_seed(0)
    entries = []
    for role, (_, m, n) in ROLES.items():
        W = base_matrix(6 * m, 6 * n, generator)
        found = compare(W, [moved(W, 1.0, generator)], round(0.4 * 6 * min(m, n)))[0]
        entries += [entry(found, layer, role) for layer in range(32)]
    named = [
        dataclasses.replace(
            e, name=f"model.language_model.layers.{e.layer}.self_attn.{e.role}.weight"
        )
        for e in entries
    ]
    text = report.render(pair(*named))
    assert len(text.encode()) < 2_000_000
    assert len(re.findall(r'<details id="m\d+d"', text)) == 224
    assert text.count('<details class="layer"') == 32
    many = [dataclasses.replace(e, name=f"{e.name} {i}") for e in named for i in range(8)]
    text = report.render(pair(*many))
    assert len(text.encode()) < 2_000_000
    assert "are in matrices.csv and report.json only" in text


@pytest.mark.parametrize("entries", [(), (entry(None),), (entry(None, None, state="nonfinite"),)])
def test_pages_of_next_to_nothing(entries: tuple[Entry, ...]) -> None:
    Page(report.render(pair(*entries)))
    Page(report.figure(pair(*entries)))
    Page(report.render(Findings("base", None, ())))


# --- drawings ----------------------------------------------------------------------------------


def test_a_picture_is_a_png_of_its_values() -> None:
    scale = Scale(Axis(1 / 32, 32.0, log=True))
    data = base64.b64decode(picture(((1.0, 32.0), (1 / 32, 0.0)), scale).split(",")[1])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">2I", data[16:24]) == (2, 2)
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    rows = zlib.decompress(data[start + 4 : start + 4 + length])
    assert rows == bytes((0, 10, 20, 0, 0, 0))
    palette = data[data.index(b"PLTE") + 4 :][:63]
    assert [palette[:3], palette[-3:]] == [bytes(mixed(SEQUENTIAL, at)) for at in (0, 1)]


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Axis(1.0, 3.0, whole=True), [1.0, 2.0, 3.0]),
        (Axis(0.001, 10.0, log=True), [0.001, 0.01, 0.1, 1.0, 10.0]),
        (Axis(0.9, 3.1, log=True), [1.0, 2.0, 3.0]),
    ],
)
def test_ticks_are_round_and_inside(axis: Axis, ticks: list[float]) -> None:
    found = axis.ticks()
    assert set(ticks) <= {round(t, 9) for t in found}
    assert all(axis.low <= t <= axis.high * (1 + 1e-9) for t in found)
    assert 2 <= len(found) <= 6


def test_a_chart_takes_any_values() -> None:
    points = [(1.0, 0.0), (2.0, math.inf), (3.0, math.nan), (4.0, 1e-300)]
    for log in (False, True):
        axis = Axis.over([y for _, y in points], "y", log)
        text = chart("t", Axis(1.0, 4.0), axis, [Line(points, "a"), Line([], "b", 1)])
        Page(text)
        assert "nan" not in text
        assert "inf" not in text


def test_the_null_band_is_drawn_as_narrow_as_it_is() -> None:
    chance = RandomSubspaces(4096, 819)
    low, high = chance.band()
    drawn = {at: (below, above) for at, below, above in _band(chance).points}
    for forced in (RandomSubspaces(100, 80), chance):
        places = {at for at, _, _ in _band(forced).points}
        assert {forced.zeros + 3, forced.zeros + 4} <= places  # where the lower limit leaves 0
    assert len(drawn) < 24
    assert drawn[4] == pytest.approx((math.degrees(low[3]), math.degrees(high[3])))
    assert drawn[4][0] > 28


def test_chosen_points_hold_both_ends() -> None:
    assert chosen(5) == [0, 1, 2, 3, 4]
    for power in (1.0, 1.6):
        found = chosen(1000, power=power)
        assert found[0] == 0 and found[-1] == 999 and len(found) <= 28


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (1.2e-5, "1.2e−5"), (-0.5, "−0.5"), (12345.6, "12,346"), (1e9, "1.00e9"),
     (None, "–"), (math.nan, "–"), (math.inf, "∞"), (0.0, "0"), (999.6, "1,000")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


# --- files -------------------------------------------------------------------------------------


def test_the_files_are_written_whole(related: Findings, tmp_path: Path) -> None:
    for _ in range(2):  # the second time over the first
        paths = report.save(related, tmp_path / "new" / "folder")
    names = ["report.json", "matrices.csv", "report.html", *faults.PICTURE]
    assert [path.name for path in paths] == names
    assert sorted(paths) == sorted((tmp_path / "new" / "folder").iterdir())
    assert paths[2].read_text() == report.render(related)


def test_the_picture_is_there_where_matplotlib_is_and_the_same_every_time(
    related: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    drawn = picture_of(related)
    assert drawn is not None and drawn.startswith(b"\x89PNG") and drawn == picture_of(related)
    assert struct.unpack(">2I", drawn[16:24]) == (1200, 750)
    assert "matplotlib.pyplot" not in sys.modules
    assert picture_of(Findings("base", None, ())) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert picture_of(related) is None
    assert len(report.save(related, tmp_path)) == 3


def test_the_picture_takes_any_findings(unrelated: Findings, trajectory: Findings) -> None:
    Text = pytest.importorskip("matplotlib.text").Text
    hostile = "$\\frac{1}{0}$" + 200 * "_" + HOSTILE
    (entries,) = model(lambda W, g: [moved(W, 1.0, g)], layers=1)
    named = tuple(dataclasses.replace(each, role=hostile) for each in entries)
    zero = torch.zeros(40, 40, dtype=torch.float64)
    infinite = entry(compare(zero, [torch.eye(40, dtype=torch.float64)], 8)[0])
    for findings in (
        unrelated, trajectory, pair(entry(None)), pair(entry(None, None, state="nonfinite")),
        pair(infinite), pair(), pair(*named, label=hostile),
    ):  # fmt: skip
        assert picture_of(findings)
    texts = [
        text for text in _card(pair(*named, label=hostile)).findobj(Text) if "$" in text.get_text()
    ]
    assert texts and not any(text.get_parse_math() for text in texts)


def test_a_failed_write_leaves_the_old_file(
    related: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.json").write_text("old")

    real = os.pwrite

    def full(descriptor: int, content: bytes, offset: int) -> int:
        real(descriptor, content[:10], offset)
        raise OSError("no space left")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space"):
        report.save(related, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text() == "old"


def test_json_has_no_nan(related: Findings, tmp_path: Path) -> None:
    broken = entry(None, state="nonfinite")
    zero = torch.zeros(40, 40, dtype=torch.float64)
    infinite = entry(compare(zero, [torch.eye(40, dtype=torch.float64)], 8)[0])
    path = report.save(pair(broken, infinite, *related.compared[0].entries), tmp_path)[0]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(path.read_text(), parse_constant=refuse)
    matrices = data["checkpoints"][0]["matrices"]
    assert len(matrices) == 16
    assert matrices[0]["relative_delta"] is None
    assert ": " not in path.read_text()[:20]


def test_csv_has_a_row_for_each_matrix_and_checkpoint(trajectory: Findings, tmp_path: Path) -> None:
    path = report.save(trajectory, tmp_path)[1]
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert list(rows[0]) == header()
    assert len(rows) == 5 * 14
    entries = [(c.label, e) for c in trajectory.compared for e in c.entries]
    for row, (label, e) in zip(rows, entries):
        found = e.measures
        assert found is not None
        assert (row["checkpoint"], row["name"], row["layer"]) == (label, e.name, str(e.layer))
        assert float(row["relative_delta"]) == pytest.approx(e.relative, rel=1e-5)
        assert float(row["left_mean"]) == pytest.approx(found.left.mean, rel=1e-5)
        assert float(row["right_chordal"]) == pytest.approx(found.right.chordal, rel=1e-5)
        parts = [float(row[part]) for part in ("diag", "rot", "outside")]
        assert sum(parts) == pytest.approx(1, abs=1e-5)
        assert int(row["k"]) == found.k
        assert row["is_chance"] == "false"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_names_are_no_formulas(start: str, tmp_path: Path) -> None:
    name = f'{start}cmd|"x",\n\x1b[31m'
    path = report.save(pair(entry(None, name=name), label=name), tmp_path)[1]
    (row,) = csv.DictReader(io.StringIO(path.read_text()))
    for column in ("name", "checkpoint"):
        assert row[column].startswith("'")
        assert row[column].isprintable()
    assert row["relative_delta"] == "0"


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")
@pytest.mark.parametrize("which", ["related", "trajectory"])
def test_a_browser_opens_the_page_without_complaint(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    findings = request.getfixturevalue(which)
    path = report.save(findings, tmp_path)[2]
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0", "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in ran.stderr
    shown = Page(ran.stdout).text.replace("\xa0", " ")
    for sentence in report.headline(findings):
        assert sentence in shown
