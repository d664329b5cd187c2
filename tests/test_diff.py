"""`uvmerge diff`: which matrices are compared, what is said first, and what it costs."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
import zoo

import uvmerge
from uvmerge.engine.settings import Control
from uvmerge.measure import compare
from uvmerge.measure.findings import Entry, Findings
from uvmerge.report import as_data
from uvmerge.spectral.gram import Eigenpairs
from uvmerge.spectral.ladder import Ladder

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return zoo.pair("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def decompositions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the eigenproblems solved, in the order in which they were."""
    sizes: list[int] = []
    real = Eigenpairs.all_of.__func__  # type: ignore[attr-defined]

    def counted(cls: Any, G: torch.Tensor) -> Any:
        sizes.append(len(G))
        return real(cls, G)

    monkeypatch.setattr(Eigenpairs, "all_of", classmethod(counted))
    return sizes


def entries(found: Findings, number: int = 0) -> dict[str, Entry]:
    return {entry.name: entry for entry in found.compared[number].entries}


def figures(found: Findings) -> Any:
    """All that was measured, without times and labels."""
    data = as_data(found)
    return [
        [{k: v for k, v in matrix.items() if k != "name"} for matrix in checkpoint["matrices"]]
        for checkpoint in data["checkpoints"]
    ]


def identical(text: str) -> bool:
    return "is identical to" in text.splitlines()[0]


# --- which matrices ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(zoo.FAMILIES))
def test_the_matrices_compared_are_those_that_an_edit_would_edit(
    family: str, tmp_path: Path
) -> None:
    pair = zoo.pair(family, tmp_path)
    plan = uvmerge.restore(*pair, tmp_path / "out", dry_run=True).plan
    edited = {b.view.label: b.view.shape for step in plan.edits for b in step.blocks}
    found = uvmerge.diff(*pair)
    assert {name: entry.shape for name, entry in entries(found).items()} == edited
    assert found.verdict == "related"
    assert all(entry.state == "measured" for entry in found.compared[0].entries)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_oss", "qwen3_moe"])
def test_a_turn_planted_in_the_files_is_found_there_and_nowhere_else(
    family: str, tmp_path: Path
) -> None:
    """Of one matrix the left vectors are turned, which is `out` however it is stored."""
    base = zoo.make(family, tmp_path / "base", dtype="float32")
    view = next(m for m in uvmerge.diff(base, base).compared[0].entries if m.shape[0] != m.shape[1])
    name, _, rest = view.name.partition("[")
    stored = {"gpt2": True, "gpt_oss": True}.get(family, False)  # (in, out)

    def turn(tensors: zoo.Tensors) -> zoo.Tensors:
        whole = tensors[name].double()
        part = whole[0] if rest else whole
        W = part.mT if stored else part
        if view.name.count("[") == 2:  # gate and up in alternating rows, or one after the other
            W = W[0::2] if family == "gpt_oss" else W[: len(W) // 2]
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        turned = U.clone()
        turned[:, 0] = math.cos(0.3) * U[:, 0] + math.sin(0.3) * U[:, 20]
        turned[:, 20] = math.cos(0.3) * U[:, 20] - math.sin(0.3) * U[:, 0]
        W.copy_((turned * S) @ Vh)
        return tensors | {name: whole.float()}

    finetuned = zoo.rewrite(base, tmp_path / "finetuned", turn)
    found = entries(uvmerge.diff(base, finetuned, top=0.2))
    assert [n for n, e in found.items() if e.state == "measured"] == [view.name]
    measures = found[view.name].measures
    assert measures is not None
    assert measures.left.largest == pytest.approx(0.3, abs=1e-5)
    assert measures.right.largest < 1e-5


def test_filters_choose_as_they_do_for_an_edit(llama: Pair) -> None:
    found = uvmerge.diff(*llama, layers="1-2", modules="attention")
    assert {(e.layer, e.module) for e in found.compared[0].entries} == {
        (1, "attention"), (2, "attention")
    }  # fmt: skip
    assert found.compared[0].others == ()  # the rest was not asked for
    everything = uvmerge.diff(*llama, modules="all")
    assert {e.module for e in everything.compared[0].entries} >= {"embeddings", "head"}
    assert found.settings["layers"] == [1, 2]


def test_filters_that_leave_no_matrix_are_told_from_those_that_leave_nothing(llama: Pair) -> None:
    with pytest.raises(uvmerge.InputRefused, match=r"no matrix selected: .*norm\.weight"):
        uvmerge.diff(*llama, modules="norm")
    with pytest.raises(uvmerge.InputRefused, match="nothing selected: none of"):
        uvmerge.diff(*llama, modules="norm", include=["nothing*"])


def test_other_tensors_are_subtracted(llama: Pair) -> None:
    found = uvmerge.diff(*llama)
    base, finetuned = map(zoo.tensors, llama)
    others = {other.name: other.relative for other in found.compared[0].others}
    assert others.keys() | entries(found).keys() == finetuned.keys()
    for name, relative in others.items():
        before, after = base[name].double(), finetuned[name].double()
        expected = float((after - before).norm() / before.norm())
        assert relative == pytest.approx(expected, rel=1e-9), name


@pytest.mark.parametrize(
    ("options", "k"), [({}, 10), ({"top": 0.5}, 24), ({"rank": 7}, 7), ({"top": "25%"}, 12)]
)
def test_k_is_chosen_as_for_an_edit(options: dict[str, Any], k: int, llama: Pair) -> None:
    found = entries(uvmerge.diff(*llama, **options))
    measures = found["model.layers.0.mlp.down_proj.weight"].measures
    assert measures is not None and measures.k == len(measures.left.angles) == k


def test_energy_counts_the_base_s_squared_values(llama: Pair) -> None:
    measures = entries(uvmerge.diff(*llama, energy=0.5))[
        "model.layers.0.mlp.down_proj.weight"
    ].measures
    assert measures is not None
    W = zoo.tensors(llama[0])["model.layers.0.mlp.down_proj.weight"].double()
    shares = torch.linalg.svdvals(W).square().cumsum(0) / W.square().sum()
    assert measures.k == int((shares < 0.5).sum()) + 1


def test_roles_are_short_and_tell_apart(tmp_path: Path) -> None:
    roles = {e.role for e in uvmerge.diff(*zoo.pair("bert", tmp_path)).compared[0].entries}
    assert roles == {
        "query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"
    }  # fmt: skip


# --- unrelated, mismatched, identical ----------------------------------------------------------


def independent(folder: Path, seed: int, hidden: int = 96) -> Path:
    make = torch.Generator().manual_seed(seed)
    plain = faults.tensors(layers=2, hidden=hidden, vocabulary=64)
    return faults.write(
        folder, {n: 0.02 * torch.randn(t.shape, generator=make) for n, t in plain.items()}
    )


def test_independent_checkpoints_are_unrelated(tmp_path: Path) -> None:
    base, other = (independent(tmp_path / str(seed), seed) for seed in (1, 2))
    outcome = faults.uvmerge("diff", base, other, "--out", tmp_path / "report")
    assert outcome.code == 4
    assert "2 is unrelated to 1" in outcome.out.splitlines()[0]
    assert "look unrelated" in outcome  # at once, before anything is measured
    assert (tmp_path / "report" / "report.html").exists()
    for entry in uvmerge.diff(base, other).compared[0].measured:
        measures = entry.measures
        assert measures is not None and measures.is_chance and measures.intruders is None
        for turn in (measures.left, measures.right):
            low, high = turn.chance.band()
            assert all(a <= angle <= b for a, angle, b in zip(low, turn.angles, high))


def test_an_extra_prefix_is_aligned_and_said(tmp_path: Path) -> None:
    base = faults.write(tmp_path / "base", faults.tensors())
    renamed = {f"language.{name}": t for name, t in faults.tuned(faults.tensors()).items()}
    plain = faults.write(tmp_path / "plain", faults.tuned(faults.tensors()))
    other = faults.write(tmp_path / "renamed", renamed)
    found = uvmerge.diff(base, other)
    assert any("names aligned" in note for note in found.compared[0].notes)
    assert figures(found) == figures(uvmerge.diff(base, plain))
    outcome = faults.done(faults.uvmerge("diff", base, other))
    assert "note: names aligned" in outcome.err


def test_names_that_hardly_match_are_unrelated(tmp_path: Path) -> None:
    base = faults.write(tmp_path / "base", faults.tensors())
    odd = {
        name.replace("q_proj", "query").replace("down_proj", "w2"): t
        for name, t in faults.tensors().items()
    }
    other = faults.write(tmp_path / "other", odd)
    outcome = faults.uvmerge("diff", base, other)
    faults.failed(outcome, "nothing matched: the base has no 6 selected tensors", code=4)


def test_a_checkpoint_of_another_size_is_unrelated(tmp_path: Path) -> None:
    base = faults.write(tmp_path / "base", faults.tensors())
    other = faults.write(tmp_path / "other", faults.tensors(hidden=32))
    outcome = faults.uvmerge("diff", base, other)
    faults.failed(outcome, "shapes differ in 6 selected tensors", code=4)


def test_identical_tensors_are_recognised_before_any_decomposition(
    llama: Pair, tmp_path: Path, decompositions: list[int]
) -> None:
    shutil.copytree(llama[0], tmp_path / "copy")
    outcome = faults.done(faults.uvmerge("diff", llama[0], tmp_path / "copy"))
    assert identical(outcome.out)
    assert decompositions == []


def test_the_same_values_in_a_wider_dtype_are_identical(llama: Pair, tmp_path: Path) -> None:
    wide = zoo.rewrite(
        llama[0], tmp_path / "wide", lambda ts: {n: t.float() for n, t in ts.items()}
    )
    assert uvmerge.diff(llama[0], wide).verdict == "identical"
    assert {e.dtype for e in uvmerge.diff(llama[0], wide).compared[0].entries} == {"F32"}


def test_a_change_outside_the_matrices_is_not_identical(llama: Pair, tmp_path: Path) -> None:
    name = "model.norm.weight"
    changed = zoo.rewrite(llama[0], tmp_path / "changed", lambda ts: ts | {name: ts[name] + 1})
    found = uvmerge.diff(llama[0], changed)
    assert found.verdict == "related"
    assert [o.name for o in found.compared[0].others if o.relative] == [name]


def test_nan_is_said_and_not_measured(tmp_path: Path) -> None:
    base, finetuned, _ = faults.pair(tmp_path)
    broken = faults.tuned(faults.tensors())
    broken[faults.Q.format(1)][0, 0] = math.nan
    faults.write(finetuned, broken)
    found = uvmerge.diff(base, finetuned)
    assert [e.name for e in found.compared[0].entries if e.state == "nonfinite"] == [
        faults.Q.format(1)
    ]
    assert "NaN" in str(found)
    json.dumps(found.as_data(), allow_nan=False)


def test_an_inf_in_another_tensor_is_no_number_in_json(tmp_path: Path) -> None:
    base, finetuned, _ = faults.pair(tmp_path)
    broken = faults.tuned(faults.tensors())
    broken[faults.EMBED][0, 0] = math.inf
    faults.write(finetuned, broken)
    found = uvmerge.diff(base, finetuned)
    assert {o.name: o.relative for o in found.compared[0].others}[faults.EMBED] is None
    json.dumps(found.as_data(), allow_nan=False)


def test_tensors_saved_empty_are_refused(tmp_path: Path) -> None:
    base, finetuned, _ = faults.pair(tmp_path)
    tuned = faults.tuned(faults.tensors()) | {faults.Q.format(0): torch.zeros(0)}
    faults.write(finetuned, tuned)
    faults.failed(faults.uvmerge("diff", base, finetuned), "ZeRO-3", code=3)


@pytest.mark.parametrize(
    ("options", "sentence", "code"),
    [
        (("--layers", "7"), "the model has 3 layers", 3),
        (("--include", "nothing*"), "nothing selected", 3),
        (("--top", "0.2", "--rank", "3"), "--top and --rank: cannot be given together", 2),
        (("--top", "2"), "outside 0 to 1", 2),
        (("--modules", "attn"), "not a module", 2),
        (("--device", "tpu"), "unknown", 2),
        (("--memory", "lots"), "not a size", 2),
        (("--memory", "9" * 400 + "GB"), "not a size", 2),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: tuple[str, ...], sentence: str, code: int, tmp_path: Path
) -> None:
    base, finetuned, _ = faults.pair(tmp_path)
    outcome = faults.uvmerge("diff", base, finetuned, *options)
    assert outcome.code == code and sentence in outcome.err and outcome.out == ""


def test_a_comparison_with_nothing_is_a_usage_error(tmp_path: Path) -> None:
    base, _, _ = faults.pair(tmp_path)
    assert faults.uvmerge("diff", base).code == 2
    with pytest.raises(uvmerge.UsageError, match="compares nothing"):
        uvmerge.diff(base)


# --- several checkpoints -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trajectory(llama: Pair, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The base, three checkpoints on the way to the fine-tuned one, and the base again."""
    folder = tmp_path_factory.mktemp("trajectory")
    base, finetuned = map(zoo.tensors, llama)

    def between(share: float) -> Callable[[zoo.Tensors], zoo.Tensors]:
        return lambda _: {
            n: (t.float() + share * (finetuned[n].float() - t.float())).to(t.dtype)
            for n, t in base.items()
        }

    shares = (0.3, 0.6, 1.0, 0.0)
    return [
        llama[0],
        *(zoo.rewrite(llama[0], folder / f"at-{share}", between(share)) for share in shares),
    ]


def test_a_trajectory_says_of_each_checkpoint_what_a_comparison_of_it_alone_says(
    trajectory: list[Path],
) -> None:
    together = figures(uvmerge.diff(*trajectory))
    alone = [figures(uvmerge.diff(trajectory[0], each))[0] for each in trajectory[1:]]
    assert together == alone


def test_every_matrix_is_decomposed_once(trajectory: list[Path], decompositions: list[int]) -> None:
    uvmerge.diff(*trajectory[:4])
    assert len(decompositions) == 28 * 4


def test_each_two_checkpoints_are_compared(trajectory: list[Path]) -> None:
    found = uvmerge.diff(*trajectory)
    pairs = {(p.first, p.second): p for p in found.pairs}
    assert list(pairs) == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    assert pairs[0, 4].distance == pairs[0, 4].left == pairs[0, 4].right == 0  # the base itself
    assert pairs[0, 1].distance < pairs[0, 2].distance < pairs[0, 3].distance
    assert pairs[2, 3].distance < pairs[1, 3].distance
    base, one, two = (zoo.tensors(trajectory[i]) for i in (0, 1, 2))
    names = entries(found).keys()
    apart = sum(float((one[n].double() - two[n].double()).square().sum()) for n in names)
    size = sum(float(base[n].double().square().sum()) for n in names)
    assert pairs[1, 2].distance == pytest.approx(math.sqrt(apart / size), rel=1e-6)
    chordals = [e.measures.left.chordal for e in found.compared[0].measured if e.measures]
    assert pairs[0, 1].left == pytest.approx(sum(chordals) / len(chordals), rel=1e-6)


def test_a_matrix_that_one_checkpoint_lacks_is_left_out_of_the_distances(
    llama: Pair, tmp_path: Path
) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    less = zoo.rewrite(
        llama[1], tmp_path / "less", lambda ts: {n: t for n, t in ts.items() if n != name}
    )
    found = uvmerge.diff(*llama, less)
    assert name in entries(found, 0) and name not in entries(found, 1)
    assert any("only in base" in note for note in found.compared[1].notes)
    whole = uvmerge.diff(*llama, exclude=[name])
    chordals = [e.measures.left.chordal for e in whole.compared[0].measured if e.measures]
    pair = next(p for p in found.pairs if (p.first, p.second) == (0, 1))
    assert pair.left == pytest.approx(sum(chordals) / len(chordals), rel=1e-6)


# --- how it computes ---------------------------------------------------------------------------


def test_workers_shards_and_kept_factors_change_nothing(
    llama: Pair, tmp_path: Path, decompositions: list[int]
) -> None:
    expected = figures(uvmerge.diff(*llama, workers=1))
    resharded = zoo.rewrite(llama[1], tmp_path / "resharded", shard_bytes=10_000)
    assert figures(uvmerge.diff(llama[0], resharded, workers=3, memory="1KB")) == expected
    assert figures(uvmerge.diff(*llama, factors=tmp_path / "factors")) == expected
    decompositions.clear()
    assert figures(uvmerge.diff(*llama, factors=tmp_path / "factors")) == expected
    assert decompositions == []


def test_factors_serve_an_edit_afterwards(
    llama: Pair, tmp_path: Path, decompositions: list[int]
) -> None:
    uvmerge.diff(*llama, top=0.2, factors=tmp_path / "factors")
    decompositions.clear()
    uvmerge.restore(*llama, tmp_path / "out", top=0.2, factors=tmp_path / "factors")
    assert decompositions == []


def test_fast_says_nearly_the_same(llama: Pair) -> None:
    exact, fast = (
        entries(uvmerge.diff(*llama, precision=precision)) for precision in ("exact", "fast")
    )
    for name, entry in exact.items():
        one, other = entry.measures, fast[name].measures
        assert one is not None and other is not None
        assert other.left.mean == pytest.approx(one.left.mean, rel=1e-3)
        assert other.change.inside == pytest.approx(one.change.inside, rel=1e-3)


def test_no_decomposition_outlives_its_matrix(llama: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[weakref.ref[Ladder]] = []
    held: list[int] = []
    top, of = Ladder.top, compare.Leading.of.__func__  # type: ignore[attr-defined]

    def noted(self: Ladder, k: int, wholly: bool = True) -> Any:
        used.append(weakref.ref(self))
        return top(self, k, wholly)

    def leading(cls: Any, matrix: Any, k: int, base: Any = None) -> Any:
        found = of(cls, matrix, k, base)
        held.append(used.pop()() is not None)
        return found

    monkeypatch.setattr(Ladder, "top", noted)
    monkeypatch.setattr(compare.Leading, "of", classmethod(leading))
    uvmerge.diff(*llama, workers=1)
    assert held and not any(held)


def test_a_gpu_that_is_full_leaves_its_matrix_to_the_cpu(
    llama: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uvmerge.engine import measuring, reading

    expected = figures(uvmerge.diff(*llama))
    real, tried = measuring.Measurer._measure, []

    def starved(self: Any, match: Any, device: str, said: str = "") -> Any:
        tried.append(device)
        if device != "cpu" and "down_proj" in match.base.tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, match, "cpu", said or device)

    monkeypatch.setattr(measuring.Measurer, "_measure", starved)
    monkeypatch.setattr(reading, "resolve_devices", lambda _: ("cuda:0",))
    monkeypatch.setattr(measuring.Measurer, "prepare_thread", lambda self: torch.set_num_threads(1))
    found = uvmerge.diff(*llama)
    assert set(tried) == {"cpu", "cuda:0"}
    devices = {e.role: e.device for e in found.compared[0].entries}
    assert devices["down_proj"] == "cpu (out of GPU memory)" and devices["q_proj"] == "cuda:0"
    same = [{k: v for k, v in m.items() if k != "device"} for m in figures(found)[0]]
    assert same == [{k: v for k, v in m.items() if k != "device"} for m in expected[0]]


def test_a_stop_ends_it_without_a_word_on_stdout(llama: Pair) -> None:
    control = Control()
    control.stop.set()
    with pytest.raises(uvmerge.Interrupted) as stopped:
        uvmerge.diff(*llama, control=control)
    assert stopped.value.exit_code == 130 and "resume" not in str(stopped.value)


def test_inputs_that_change_meanwhile_are_noticed(
    llama: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(llama[1], tmp_path / "finetuned")
    file = zoo.files(tmp_path / "finetuned")[0]
    from uvmerge.engine import measuring

    real = measuring.run

    def run(*arguments: Any) -> Any:
        done = real(*arguments)
        file.touch()
        return done

    monkeypatch.setattr(measuring, "run", run)
    with pytest.raises(uvmerge.RunFailed, match="changed while running"):
        uvmerge.diff(llama[0], tmp_path / "finetuned")


# --- what it writes and says -------------------------------------------------------------------


def test_nothing_is_written_unless_asked_and_inputs_stay_as_they_are(
    llama: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = faults.tree(llama[0].parent)
    faults.done(faults.uvmerge("diff", *llama))
    assert faults.tree(llama[0].parent) == before
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_a_page_and_its_data(llama: Pair, tmp_path: Path) -> None:
    faults.done(faults.uvmerge("diff", *llama, "--out", tmp_path / "report"))
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == faults.REPORT
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data["uvmerge_report"] == 1 and len(data["checkpoints"][0]["matrices"]) == 28
    faults.done(faults.uvmerge("diff", *llama, "--out", tmp_path / "report"))  # its own: replaced


def test_json_on_stdout_is_what_the_report_holds(llama: Pair, tmp_path: Path) -> None:
    outcome = faults.done(
        faults.uvmerge("diff", *llama, "--json", "-q", "--out", tmp_path / "report")
    )
    assert outcome.err == ""
    printed = json.loads(outcome.out)
    assert printed == json.loads((tmp_path / "report" / "report.json").read_text())


def test_a_report_is_not_put_among_strange_files(llama: Pair, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    faults.failed(
        faults.uvmerge("diff", *llama, "--out", tmp_path), "holds more than a report", code=3
    )
    faults.done(faults.uvmerge("diff", *llama, "--out", tmp_path, "--overwrite"))
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_report_goes_into_no_input(tmp_path: Path) -> None:
    base, finetuned, _ = faults.pair(tmp_path)
    for out in (finetuned, finetuned / "report", base.parent):
        faults.failed(faults.uvmerge("diff", base, finetuned, "--out", out), "input", code=2)


def test_the_summary_fits_a_screen(llama: Pair) -> None:
    for options in ((), ("--layers", "0")):
        lines = faults.done(faults.uvmerge("diff", *llama, *options)).out.splitlines()
        assert len(lines) <= 45
        assert max(map(len, lines)) <= 100


def commands(outcome: faults.Outcome) -> list[list[str]]:
    """The commands of the block "what now", as words."""
    lines = outcome.err.partition("what now: ")[2].splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("    ")]


def test_the_next_commands_are_ones_that_work(
    llama: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = faults.done(faults.uvmerge("diff", *llama))
    assert "what now: the change is spread over the layers" in outcome
    for words in commands(outcome):
        faults.done(faults.uvmerge(*words))
    assert (tmp_path / "candidates" / "top-0.2" / "uvmerge.json").exists()
    assert (tmp_path / "interpolated" / "scale-0.3" / "uvmerge.json").exists()
    assert (tmp_path / "report" / "report.html").exists()


def test_no_repair_is_suggested_of_what_is_refused_or_may_be_rounding(tmp_path: Path) -> None:
    tensors = {n: t.bfloat16() for n, t in faults.tensors().items()}
    make = torch.Generator().manual_seed(0)
    noisy = {
        n: (t.float() * (1 + 1e-3 * torch.randn(t.shape, generator=make))).bfloat16()
        for n, t in tensors.items()
    }
    broken = faults.tuned(tensors)
    next(t for n, t in broken.items() if "q_proj" in n)[0, 0] = float("nan")
    norms = tensors | {n: 2 * t for n, t in tensors.items() if "norm" in n}
    cases = {
        "no more than rounding makes": (noisy, []),
        "NaN or Inf": (broken, ["check"]),
        "nothing is to be repaired": (tensors, []),
        "no matrix moved": (norms, ["sweep"]),
    }
    for i, (sentence, (finetuned, first)) in enumerate(cases.items()):
        base, after, _ = faults.pair_of(tmp_path / str(i), tensors, finetuned)
        outcome = faults.done(faults.uvmerge("diff", base, after, "--out", tmp_path / f"report{i}"))
        assert sentence in outcome.err.partition("what now: ")[2]
        assert [words[0] for words in commands(outcome)] == first, outcome.err


def test_no_repair_of_an_output_of_uvmerge_is_suggested(llama: Pair, tmp_path: Path) -> None:
    base, finetuned = llama
    out = tmp_path / "out"
    faults.done(faults.uvmerge("restore", *llama, out))
    for first in (finetuned, base):
        outcome = faults.done(faults.uvmerge("diff", first, out, "--out", tmp_path / first.name))
        assert "what now: out was made by uvmerge from base and finetuned, so no repair" in outcome
        assert commands(outcome) == [["check", str(out), "--load"]]
        page = (tmp_path / first.name / "report.html").read_text()
        assert "was made by uvmerge from base and finetuned" in page
    for path in out.iterdir():
        os.utime(path)  # a copy may have other times
    os.utime(out / "model.safetensors", (2e9, 2e9))
    assert uvmerge.diff(finetuned, out).compared[0].made_from == ("base", "finetuned")
    shutil.copy(finetuned / "model.safetensors", out / "model.safetensors")
    os.utime(out / "model.safetensors", (2e9, 2e9))
    assert uvmerge.diff(base, out).compared[0].made_from == ()  # it was trained on, in its place
    (out / "uvmerge.json").write_text("{}")
    assert uvmerge.diff(base, out).compared[0].made_from == ()


def test_print_says_what_now_as_the_command_does(llama: Pair) -> None:
    outcome = faults.done(faults.uvmerge("diff", *llama))
    said = outcome.err[outcome.err.index("what now: ") :]
    assert str(uvmerge.diff(*llama)) == f"{outcome.out}\n{said.rstrip()}"


def test_few_layers_that_changed_are_named_and_an_unrelated_base_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = faults.tensors(layers=8)
    moved = faults.tuned(tensors)
    few = tensors | {n: t for n, t in moved.items() if ".2." in n or ".3." in n}
    config = faults.CONFIG | {"num_hidden_layers": 8}
    base, finetuned, _ = faults.pair_of(tmp_path / "few", tensors, few, config=config)
    outcome = faults.done(faults.uvmerge("diff", base, finetuned, "--out", "page"))
    assert "100 % of the change lies in layers 2-3 of 8 layers" in outcome
    for words in commands(outcome):
        faults.done(faults.uvmerge(*words))
        assert words[:2] == ["sweep", "interpolate"] or words[-2:] == ["--layers", "2-3"]
    make = torch.Generator().manual_seed(5)
    other = {n: torch.randn(t.shape, generator=make) for n, t in tensors.items()}
    base, stranger, _ = faults.pair_of(tmp_path / "other", tensors, other, config=config)
    outcome = faults.uvmerge("diff", base, stranger, "--out", "page")
    assert outcome.code == 4 and "find the model that was fine-tuned" in outcome
    assert [words[0] for words in commands(outcome)] == ["show", "show"]


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    evil = "\x1b[31m<script>alert(1)</script>"
    names = {n: n.replace("self_attn", f"self_attn{evil}") for n in faults.tensors()}
    base, finetuned, _ = faults.pair_of(
        tmp_path, {names[n]: t for n, t in faults.tensors().items()},
        {names[n]: t for n, t in faults.tuned(faults.tensors()).items()},
    )  # fmt: skip
    hostile = finetuned.with_name("<script>alert(2)")
    finetuned.rename(hostile)
    outcome = faults.done(faults.uvmerge("diff", base, hostile, "--out", tmp_path / "report"))
    assert "\x1b" not in outcome.out + outcome.err
    page = (tmp_path / "report" / "report.html").read_text()
    assert "\x1b" not in page and "<script" not in page
    assert "&lt;script&gt;alert(1)" in page and "&lt;script&gt;alert(2)" in page


def test_restore_writes_a_report_of_before_and_after(llama: Pair, tmp_path: Path) -> None:
    out, report = tmp_path / "out", tmp_path / "report"
    outcome = faults.done(
        faults.uvmerge("restore", *llama, out, "--top", "0.3", "--report", report)
    )
    assert outcome.out == f"{out}\n"
    assert f"wrote {report / 'report.html'}\n" in outcome.err
    data = json.loads((report / "report.json").read_text())
    assert [c["reference"] for c in data["checkpoints"]] == ["finetuned", "out"]
    assert data["settings"]["top"] == 0.3 and len(data["pairs"]) == 3
    expected = uvmerge.diff(*llama, out, top=0.3)
    assert data["checkpoints"] == json.loads(json.dumps(expected.as_data()["checkpoints"]))


def test_what_surgery_did_is_a_comparison_with_its_output(llama: Pair, tmp_path: Path) -> None:
    out = uvmerge.reset_layers(*llama, tmp_path / "out", layers="0").out
    assert out is not None
    found = entries(uvmerge.diff(llama[1], out))
    assert {e.layer for e in found.values() if e.state == "measured"} == {0}
    back = entries(uvmerge.diff(llama[0], out))
    assert {e.layer for e in back.values() if e.state == "identical"} == {0}


@pytest.mark.parametrize("where", ["out", "base", "."])
def test_a_report_of_a_run_has_a_place_of_its_own(where: str, tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    outcome = faults.restore(base, finetuned, out, "--report", tmp_path / where)
    faults.failed(outcome, "report" if where == "report" else "put", code=2)
    assert not out.exists()


def test_a_sweep_says_how_to_report(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    with pytest.raises(uvmerge.UsageError, match="uvmerge diff BASE"):
        uvmerge.sweep("restore", base, finetuned, out, top=[0.1, 0.2], report=tmp_path / "report")
    assert faults.uvmerge("sweep", "restore", base, finetuned, out, "--report", "x").code == 2


# --- Python ------------------------------------------------------------------------------------


def test_diff_is_a_function_of_the_package_whatever_was_imported() -> None:
    import uvmerge.api.diff
    from uvmerge import diff

    assert callable(diff) and callable(uvmerge.diff)


def test_findings_are_typed_and_saved(llama: Pair, tmp_path: Path) -> None:
    found = uvmerge.diff(*llama)
    assert isinstance(found, uvmerge.Diff) and isinstance(found, Findings)
    paths = found.save(tmp_path / "report")
    assert sorted(p.name for p in paths) == faults.REPORT
    assert "<svg" in found._repr_html_()
    assert "finetuned is related to base" in str(found).splitlines()[0]


def test_a_frame_has_a_row_per_matrix(llama: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(uvmerge.UsageError, match="needs pandas"):
        uvmerge.diff(*llama).to_frame()
    stand_in = types.SimpleNamespace(DataFrame=list)
    monkeypatch.setitem(sys.modules, "pandas", stand_in)
    rows = uvmerge.diff(*llama, llama[0]).to_frame()
    assert len(rows) == 2 * 28 and {"name", "relative_delta"} <= rows[0].keys()


def test_the_documentation_names_every_key_of_the_report(trajectory: list[Path]) -> None:
    text = (Path(uvmerge.__file__).parent.parent / "docs" / "report.md").read_text()
    schema = text[text.index("## `report.json`") :]

    def keys(data: Any) -> set[str]:
        if isinstance(data, dict):
            return set(data).union(*map(keys, data.values()))
        return set().union(*map(keys, data)) if isinstance(data, list) else set()

    data = uvmerge.diff(*trajectory[:3]).as_data()
    data.pop("seconds"), data.pop("versions")
    missing = {key for key in keys(data) if f"`{key}`" not in schema and f"`{key}[]`" not in schema}
    assert not missing


@pytest.mark.parametrize("which", [0, 1])
def test_a_matrix_that_is_zero_on_one_side_is_not_called_unrelated(
    which: int, tmp_path: Path
) -> None:
    plain = faults.tensors(layers=1)
    both = [plain, faults.tuned(plain)]
    zeros = {n: torch.zeros_like(t) for n, t in plain.items() if "layers.0" in n}
    both[which] = both[which] | zeros
    base, finetuned, _ = faults.pair_of(tmp_path, *both, config=faults.CONFIG | {"num_hidden_layers": 1})  # fmt: skip
    found = uvmerge.diff(base, finetuned)
    assert found.verdict == "related"
    assert all(e.measures and e.measures.k == 0 for e in found.compared[0].entries)
    assert "k is 0" in str(found)
    json.dumps(found.as_data(), allow_nan=False)
    found.save(tmp_path / "report")


def test_checkpoints_of_one_name_are_told_apart(llama: Pair, tmp_path: Path) -> None:
    runs = [tmp_path / run / "final" for run in ("first", "second")]
    for run, source in zip(runs, llama):
        shutil.copytree(source, run)
    assert uvmerge.diff(*runs).labels == ["first/final", "second/final"]
    assert uvmerge.diff(runs[0], runs[1], llama[1]).labels[2] == "finetuned"
    twice = uvmerge.diff(runs[0], runs[1], runs[1]).labels
    assert len(set(twice)) == 3


def test_nothing_measured_suggests_no_edit(tmp_path: Path) -> None:
    base, finetuned, _ = faults.pair(tmp_path)
    broken = {n: torch.full_like(t, math.nan) for n, t in faults.tensors().items()}
    faults.write(finetuned, broken)
    outcome = faults.done(faults.uvmerge("diff", base, finetuned))
    assert [words[0] for words in commands(outcome)] == ["check"] and "NaN" in outcome.out
