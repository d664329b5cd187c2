"""Which tensor is which: one correspondence, and the same words for it in an edit and in `diff`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faults
import pytest
import torch
import zoo
from faults import DOWN, EMBED, HEAD, Q

import uvmerge
from uvmerge.checkpoint.alignment import Subject, alignment_notes, correspond
from uvmerge.checkpoint.anatomy import Anatomy
from uvmerge.checkpoint.folder import Checkpoint

Tensors = faults.Tensors


def subjects(reference: str, **folders: Path) -> dict[tuple[str, str], Subject]:
    """What `correspond` finds among checkpoints named by role, by role and name of the tensor."""
    anatomies = {}
    for role, folder in folders.items():
        with Checkpoint.open(folder) as opened:
            anatomies[role] = Anatomy(opened)
    return {(s.role, s.tensor.name): s for s in correspond(reference, anatomies)}


def why(subject: Subject) -> str:
    """Why a subject takes no part beside all others, if so."""
    return subject.why(subject.partners)[1]


def written(folder: Path, tensors: Tensors) -> Path:
    return faults.write(folder, tensors)


# --- the correspondence ------------------------------------------------------------------------


def test_every_tensor_of_the_reference_is_a_subject_in_its_order(tmp_path: Path) -> None:
    base, finetuned, _ = faults.pair(tmp_path)
    found = subjects("finetuned", base=base, finetuned=finetuned)
    assert [name for _, name in found] == list(zoo.raw(finetuned))
    for (role, name), subject in found.items():
        partner = subject.partners["base"]
        assert role == "finetuned" and why(subject) == ""
        assert partner.tensor is not None and partner.tensor.name == name
        assert partner.how == "name" and partner.views == subject.views


def test_any_number_of_checkpoints_is_looked_up_against_one(tmp_path: Path) -> None:
    plain = faults.tensors()
    norm = "model.norm.weight"
    less = {name: t for name, t in plain.items() if name != norm}
    found = subjects(
        "base",
        base=written(tmp_path / "base", plain),
        first=written(tmp_path / "first", faults.tensors(prefix="model.language_model.")),
        second=written(tmp_path / "second", less | {"value_head.weight": torch.ones(4, 16)}),
    )
    final, query = found["base", norm], found["base", Q.format(0)]
    assert final.partners["first"].why == "" and final.partners["second"].why == "missing"
    assert final.why(["first", "second"]) == ("second", "missing")
    assert query.partners["first"].how == "prefix" and query.partners["second"].how == "name"
    assert found["second", "value_head.weight"].partners == {}
    assert len(found) == len(plain) + 1


@pytest.mark.parametrize("fused", ["base", "finetuned"])
def test_experts_correspond_matrix_by_matrix_where_one_side_fuses_them(
    fused: str, tmp_path: Path
) -> None:
    base, finetuned = zoo.pair("mixtral", tmp_path)
    folders = {"base": base, "finetuned": finetuned}
    folders[fused] = zoo.fuse_experts(folders[fused], tmp_path / "fused")
    found = subjects("finetuned", **folders)
    assert not any(why(subject) for subject in found.values())
    assert all(role == "finetuned" for role, _ in found)
    experts = [s for s in found.values() if ".experts." in s.tensor.name]
    assert experts and all(s.partners["base"].how == "expert" for s in experts)
    assert all(s.partners["base"].tensor is None for s in experts)
    matched = [view for s in experts for view in s.partners["base"].views]
    assert len(set(matched)) == len(matched) == 4 * 4 * 3
    gates = [s for s in found.values() if s.partners["base"].how == "module"]
    other = "fine-tuned" if fused == "base" else "base"
    assert len(gates) == 4  # the router's parent module has another name
    assert list(alignment_notes(found.values())) == [
        f"names aligned: fine-tuned {gates[0].tensor.name} is"
        f" base {gates[0].partners['base'].tensor.name} (4 tensors alike)",  # type: ignore[union-attr]
        f"experts aligned: fused in {fused.replace('finetuned', 'fine-tuned')}, apart in {other} (48 expert matrices)",
    ]


def test_no_tensor_is_the_partner_of_two(tmp_path: Path) -> None:
    """Both `x.weight` and `model.x.weight` could be the base's `x.weight`: the exact name is."""
    base = {n.removeprefix("model."): t for n, t in faults.tensors().items()}
    base |= {"x.weight": torch.ones(4, 4)}
    ours = {"model.x.weight": torch.ones(4, 4), "x.weight": torch.ones(4, 4)} | faults.tensors()
    pair = {"base": written(tmp_path / "b", base), "finetuned": written(tmp_path / "f", ours)}
    found = subjects("finetuned", **pair)
    assert why(found["finetuned", "x.weight"]) == ""
    assert why(found["finetuned", "model.x.weight"]) == "taken"
    assert found["finetuned", Q.format(0)].partners["base"].how == "prefix"


REASONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor | None], str]] = {
    "missing": (lambda t: None, "missing"),
    "another shape": (lambda t: t[:-1].clone(), "shape"),
    "empty": (lambda t: torch.zeros(0), "empty"),
    "integers": (lambda t: t.to(torch.int8), "dtype"),
    "another float": (lambda t: t.bfloat16(), ""),
    "as it is": (lambda t: t, ""),
}


@pytest.mark.parametrize(("change", "reason"), REASONS.values(), ids=REASONS)
@pytest.mark.parametrize("side", ["base", "finetuned"])
def test_a_subject_says_why_it_has_no_partner(
    side: str,
    change: Callable[[torch.Tensor], torch.Tensor | None],
    reason: str,
    tmp_path: Path,
) -> None:
    tensors = {"base": faults.tensors(), "finetuned": faults.tensors()}
    changed = change(tensors[side].pop(DOWN.format(1)))
    if changed is not None:
        tensors[side][DOWN.format(1)] = changed
    found = subjects("finetuned", **{r: written(tmp_path / r, t) for r, t in tensors.items()})
    if side == "finetuned" and reason == "missing":
        assert found["base", DOWN.format(1)].partners == {}
        return
    assert why(found["finetuned", DOWN.format(1)]) == reason


# --- the same words ----------------------------------------------------------------------------


def without(tensors: Tensors, part: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if part not in name}


def renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


ODD_PAIRS: dict[str, tuple[Callable[[Tensors], Tensors], tuple[str, ...]]] = {
    "one matrix of another shape": (lambda t: t | {Q.format(1): torch.ones(15, 16)}, ()),
    "all matrices of another shape": (lambda t: faults.tensors(hidden=24), ()),
    "another vocabulary, by name": (
        lambda t: t | {EMBED: torch.ones(40, 16)}, ("--modules", "embeddings"),
    ),
    "nothing of that name": (
        lambda t: renamed(renamed(t, "q_proj", "query"), "down_proj", "w2"), (),
    ),
    "few of these names": (lambda t: without(without(t, "layers.0"), "layers.1"), ()),
    "saved empty": (lambda t: t | {Q.format(0): torch.zeros(0)}, ()),
    "two ways to align": (
        lambda t: renamed(t, "model.", "a.") | renamed(t, "model.", "b."), (),
    ),
    "no way to align": (
        lambda t: renamed(t, "model.", "a.") | {"a.layers.1.mlp.down_proj.weight": torch.ones(3, 2)},
        (),
    ),
    "nothing selected": (lambda t: t, ("--include", "nothing*")),
    "no matrix selected": (lambda t: t, ("--modules", "norm")),
    "no such layer": (lambda t: t, ("--layers", "9")),
}  # fmt: skip
UNRELATED = ("all matrices of another shape", "nothing of that name", "few of these names")


@pytest.mark.parametrize("case", ODD_PAIRS)
def test_diff_and_an_edit_refuse_a_pair_in_the_same_words(case: str, tmp_path: Path) -> None:
    change, options = ODD_PAIRS[case]
    base, finetuned, out = faults.pair_of(
        tmp_path, change(faults.tensors()), faults.tuned(faults.tensors())
    )
    edit = faults.restore(base, finetuned, out, *options)
    diff = faults.uvmerge("diff", base, finetuned, *options)
    assert edit.code == 3
    assert diff.code == (4 if case in UNRELATED else 3)
    said = [outcome.err[outcome.err.index("error: ") :] for outcome in (edit, diff)]
    assert said[0].replace(" --force goes on.", "") == said[1]


NOTED: dict[str, Callable[[Tensors], Tensors]] = {
    "a prefix": lambda t: renamed(t, "model.", "model.language_model."),
    "only in the fine-tuned": lambda t: without(t, HEAD),
    "only in the base": lambda t: t | {"model.layers.0.inv_freq": torch.ones(8)},
    "another vocabulary": lambda t: t | {EMBED: torch.ones(40, 16), HEAD: torch.ones(40, 16)},
    "integers": lambda t: t | {Q.format(1): torch.ones(16, 16, dtype=torch.int8)},
}
CONSEQUENCES = ("copied", "ignored", "left as fine-tuned")


@pytest.mark.parametrize("case", NOTED)
def test_diff_and_an_edit_note_a_pair_in_the_same_words(case: str, tmp_path: Path) -> None:
    pair = faults.pair_of(tmp_path, NOTED[case](faults.tensors()), faults.tuned(faults.tensors()))
    planned = [*uvmerge.restore(*pair, dry_run=True).plan.notes]
    measured = [*uvmerge.diff(*pair[:2]).compared[0].notes]
    for word in CONSEQUENCES:
        planned = [note.replace(f", {word}:", ", not compared:") for note in planned]
    assert planned == measured != []


def test_a_tensor_of_another_kind_in_the_base_is_said_not_skipped_in_silence(
    tmp_path: Path,
) -> None:
    base = faults.tensors() | {Q.format(1): torch.ones(16, 16, dtype=torch.int8)}
    pair = faults.pair_of(tmp_path, base, faults.tuned(faults.tensors()))
    notes = uvmerge.restore(*pair, dry_run=True).plan.notes
    sentence = "of another kind in the base, left as fine-tuned"
    assert f"{sentence}: 1 tensor: {Q.format(1)} (F32 against I8 in the base)" in notes


def test_of_several_checkpoints_the_one_that_does_not_fit_is_named(tmp_path: Path) -> None:
    base, finetuned, _ = faults.pair(tmp_path)
    odd = faults.write(tmp_path / "odd", faults.tensors() | {Q.format(1): torch.ones(15, 16)})
    outcome = faults.uvmerge("diff", base, finetuned, odd)
    faults.failed(outcome, "base and checkpoint 2: shapes differ in 1 selected tensor", code=3)
