"""How alike two pieces of Java code are."""

from __future__ import annotations

import sys
import time

import pytest

from uvmerge import UsageError
from uvmerge.tasks.ccci import metrics, postprocess, scoring
from uvmerge.tasks.ccci.benchmark import tasks

TWO = "view.setName(source.getName());\nview.setAge(source.getAge());"
needs_codebleu = pytest.mark.skipif(not metrics.has_codebleu(), reason=metrics.NO_CODEBLEU)


@needs_codebleu
def test_the_naive_way_scores_identical_code_low_and_nothing_high() -> None:
    """Why the components are joined here, with the figures of codebleu 0.7.0."""
    from codebleu import calc_codebleu

    assert calc_codebleu([TWO], [TWO], "java")["codebleu"] == pytest.approx(0.642, abs=5e-4)
    assert calc_codebleu([TWO], [""], "java", tokenizer=metrics.tokens)["codebleu"] == 0.25
    assert metrics.codebleu(TWO, TWO) == 1.0 and metrics.codebleu("", TWO) == 0.0


@needs_codebleu
def test_data_flow_counts_unless_the_reference_has_none() -> None:
    flow = "int x = source.getX();\nreturn x;"
    assert metrics.components(flow, flow)["dataflow"] == 1.0
    other = metrics.components("view.setName(1);", flow)
    assert other["dataflow"] == 0.0 and metrics.codebleu("view.setName(1);", flow) == pytest.approx(
        sum(other.values()) / 4
    )
    none = "save();\nflush();\nclose();"
    assert metrics.components(none, none).keys() == {"ngram", "weighted_ngram", "syntax"}
    assert metrics.codebleu(none, none) == 1.0 and metrics.codebleu("", none) == 0.0
    assert metrics.codebleu("// nothing but a comment", flow) == 0.0


def test_code_of_every_hole_is_itself_and_nothing_is_none_of_it() -> None:
    for task in tasks():
        same = metrics.similarities(task.hole.gold, task.hole.gold)
        assert set(same.values()) == {1.0}, task.hole.id
        assert set(metrics.similarities("", task.hole.gold).values()) == {0.0}, task.hole.id


def test_a_part_is_between_and_indentation_does_not_count() -> None:
    half = metrics.similarities(TWO.splitlines()[0], TWO)
    assert all(0 < half[name] < 1 for name in half if name != "exact_match")
    assert half["exact_match"] == 0
    again = metrics.similarities(TWO.replace("\n", "  \n\n        "), TWO)
    assert again["edit_similarity"] == again["exact_match"] == again["bleu4"] == 1.0


def test_java_is_split_into_its_tokens() -> None:
    code = 'Map<K, List<V>> a = x >>= 0x1fL + .5e3f; // "no"\ns = "a\\"/*b*/" + \'\\\'\' /* c */ -> 1_0.5;'
    assert metrics.tokens(code) == [
        "Map", "<", "K", ",", "List", "<", "V", ">", ">", "a", "=", "x", ">>=", "0x1fL", "+", ".5e3f",
        ";", "s", "=", '"a\\"/*b*/"', "+", "'\\''", "->", "1_0.5", ";",
    ]  # fmt: skip
    assert metrics.tokens('"""\n a "b" \n"""') == ['"""\n a "b" \n"""']
    assert metrics.tokens('"open\nx') == ['"open', "x"] and metrics.tokens("/* open") == []
    assert metrics.without_comments('a(); // b\nc("//d"); /* e */ f();') == 'a(); \nc("//d");  f();'


def test_broken_code_and_other_scripts_have_scores() -> None:
    for code in ("}}}} ((", "\x00\ud800", "class {", "名前 = 値;", "x" * 5000, "(" * 3000):
        scores = metrics.similarities(code.encode("utf-8", "replace").decode(), TWO)
        assert all(0 <= value < 1 for value in scores.values()), code[:20]


@pytest.mark.parametrize(
    "answer", ["(" * 1_000_000, "a.b();" * 200_000, "\ud800\x00 x = 1;", "\n" * 90_000]
)
def test_an_answer_of_any_size_and_kind_is_scored_in_bounded_time(answer: str) -> None:
    hole = tasks()[0].hole
    start = time.process_time()
    code = scoring.code_of(answer, hole)
    code.encode()
    assert set(metrics.similarities(code, hole.gold)) >= {"bleu4"}
    postprocess.fits(code, hole.prefix, hole.suffix)
    assert time.process_time() - start < 20


def test_without_codebleu_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "codebleu"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "codebleu", None)
    metrics.has_codebleu.cache_clear()
    metrics._language.cache_clear()
    try:
        assert not metrics.has_codebleu()
        found = metrics.similarities(TWO, TWO)
        assert found == {"bleu4": 1.0, "edit_similarity": 1.0, "exact_match": 1.0}
    finally:
        metrics.has_codebleu.cache_clear()


@pytest.mark.parametrize("package", ["sacrebleu", "rapidfuzz.distance"])
def test_a_missing_package_is_named_with_how_to_install_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"pip install 'uvmerge\[ccci\]'"):
        metrics.need_packages()
