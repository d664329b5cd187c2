"""Every family of models, and every way in which a checkpoint stores its matrices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import zoo
from reference import Array

import uvmerge

Pair = tuple[Path, Path]
Edit = Callable[[Array, Array], Array]

PROJECTIONS = r"self_attn\.(q|k|v|o|qkv)_proj|(mlp|\w+\.shared_expert)\.(gate|up|down|gate_up)_proj"
GPT2 = r"attn\.c_(attn|proj)|mlp\.c_(fc|proj)"
BERT = (
    r"attention\.self\.(query|key|value)|attention\.output\.dense|intermediate\.dense|output\.dense"
)
APART = r"(mlp|block_sparse_moe)\.experts\.\d+\.(w1|w2|w3|\w+_proj)"
FUSED = r"\w+\.experts\.(gate_up|down)_proj"
EDITED = re.compile(
    r"(language_model\.|transformer\.|bert\.encoder\.)?(model\.)?(language_model\.)?"
    rf"(?P<stack>layers|h|layer)\.\d\.(({PROJECTIONS}|{GPT2}|{BERT}|{APART})\.weight|{FUSED})"
)
MATRICES = dict.fromkeys(zoo.FAMILIES, 4 * 7) | {  # in four layers
    "phi3": 4 * 4, "gpt2": 4 * 4, "bert": 4 * 6, "mixtral": 4 * (4 + 3 * 4),
    "qwen2_moe": 4 * (4 + 3 * 4 + 3), "qwen3_moe": 4 * (4 + 3 * 4),
    "gpt_oss": 4 * (4 + 3 * 4), "llama4": 4 * (4 + 3 * 4 + 3),
}  # fmt: skip


def arrays(folder: Path) -> dict[str, Array]:
    return {name: np.asarray(tensor.double()) for name, tensor in zoo.tensors(folder).items()}


def changed(out: Path, finetuned: Path) -> set[str]:
    before, after = zoo.raw(finetuned), zoo.raw(out)
    assert list(before) == list(after)
    return {name for name in before if before[name] != after[name]}


def parts(family: str, name: str, tensor: Array) -> Iterator[Array]:
    """The matrices (out, in) of a tensor, as writable views of it."""
    if tensor.ndim == 2:
        yield tensor.T if family == "gpt2" else tensor
        return
    for expert in tensor:
        W = expert.T if family in ("gpt_oss", "llama4") else expert
        if "gate_up" not in name:
            yield W
        elif family == "gpt_oss":
            yield from (W[0::2], W[1::2])
        else:
            yield from np.split(W, 2)


def assert_edited(family: str, pair: Pair, out: Path, edit: Edit) -> None:
    """Every matrix that should be edited is `edit` of the two, rounded once."""
    base, finetuned, result = map(arrays, (*pair, out))
    for name in filter(EDITED.fullmatch, finetuned):
        expected = np.empty_like(finetuned[name])
        tensors = (base[name], finetuned[name], expected)
        for W_b, W_f, W in zip(*(parts(family, name, tensor) for tensor in tensors), strict=True):
            W[:] = edit(W_b, W_f)
        assert np.array_equal(result[name], reference.nearest(expected)), name


def assert_loads(out: Path) -> None:
    report = zoo.load(out)[1]
    assert {"missing_keys", "unexpected_keys", "mismatched_keys"} <= report.keys()
    assert not any(report.values()), report
    assert zoo.logits(out).isfinite().all()


def fifth(W: Array) -> int:
    return round(0.2 * min(W.shape))


# --- every family ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_restore_edits_the_matrices_of_the_layers_and_loads(family: str, tmp_path: Path) -> None:
    pair = zoo.pair(family, tmp_path, shard_bytes=zoo.SHARD_BYTES)
    result = uvmerge.restore(*pair, tmp_path / "out", top=0.2)
    selected = {name for name in zoo.raw(pair[1]) if EDITED.fullmatch(name)}
    assert changed(result.out, pair[1]) == selected
    assert result.plan.counts()["edited"] == len(result.edits) == MATRICES[family]
    assert all(entry["changed"] for entry in result.edits.values())
    assert_edited(family, pair, result.out, lambda b, f: reference.restore(b, f, fifth(f)))
    assert_loads(result.out)
    assert not torch.equal(zoo.logits(result.out), zoo.logits(pair[1]))


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_reset_layers_resets_half_of_them_and_loads(family: str, tmp_path: Path) -> None:
    pair = zoo.pair(family, tmp_path)
    out = uvmerge.reset_layers(*pair, tmp_path / "out", frac=0.5).out
    first = next(match for name in zoo.raw(pair[1]) if (match := EDITED.fullmatch(name)))
    inside = re.compile(re.escape(first[0][: first.end("stack")]) + r"\.[01]\..*")
    base, finetuned = map(zoo.raw, pair)
    expected = {n: (base if inside.fullmatch(n) else finetuned)[n] for n in finetuned}
    assert zoo.raw(out) == expected
    assert len(changed(out, pair[1])) >= MATRICES[family] / 4 / 2
    assert_loads(out)


# --- orientation and fused matrices ------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["gpt2", "phi3", "gpt_oss", "llama4"])
def test_left_is_the_side_of_the_outputs(family: str, side: str, tmp_path: Path) -> None:
    """Conv1D, fused and interleaved experts: what is stored (in, out) counts as (out, in)."""
    pair = zoo.pair(family, tmp_path)
    out = uvmerge.swap(*pair, tmp_path / "out", **{side: True}).out
    assert_edited(family, pair, out, lambda b, f: reference.swap(b, f, fifth(f), side))


def test_conv1d_is_the_transpose_of_linear(tmp_path: Path) -> None:
    """GPT-2 turned into (out, in), with biases that tell so, gives the same numbers turned."""
    pair = zoo.pair("gpt2", tmp_path)
    turned = [zoo.rewrite(folder, tmp_path / f"{folder.name}-t", transpose) for folder in pair]
    out = uvmerge.swap(*pair, tmp_path / "out", left=True, align="match").out
    other = uvmerge.swap(*turned, tmp_path / "other", left=True, align="match").out
    assert zoo.raw(zoo.rewrite(other, tmp_path / "back", transpose)) == zoo.raw(out)


def transpose(tensors: zoo.Tensors) -> zoo.Tensors:
    return {
        name: tensor.mT.contiguous() if tensor.ndim == 2 and ".h." in name else tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.skipif(not zoo.IS_FIVE, reason="transformers 4 stores experts apart")
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_fused_experts_are_edited_one_by_one(family: str, tmp_path: Path) -> None:
    apart = zoo.pair(family, tmp_path)
    pair = tuple(zoo.fuse_experts(f, tmp_path / f"{f.name}-fused") for f in apart)
    result = uvmerge.swap(*pair, tmp_path / "out", left=True)
    assert result.plan.counts()["edited"] == MATRICES[family]
    assert_edited(family, pair, result.out, lambda b, f: reference.swap(b, f, fifth(f), "left"))
    assert_loads(result.out)


OPERATIONS: dict[str, dict[str, Any]] = {
    "restore": {"top": 0.2},
    "swap": {"left": True},
    "reset_layers": {"frac": 0.5},
    "interpolate": {"scale": 0.5},
    "lines": {},
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_one_side_may_store_its_experts_fused(family: str, name: str, tmp_path: Path) -> None:
    apart = zoo.pair(family, tmp_path)
    fused = [zoo.fuse_experts(f, tmp_path / f"{f.name}-fused") for f in apart]

    def run(base: Path, finetuned: Path) -> Path:
        out = tmp_path / f"{base.name}, {finetuned.name}"
        folder: Path = getattr(uvmerge, name)(base, finetuned, out, **OPERATIONS[name]).out
        return folder

    expected = zoo.raw(run(*apart))
    assert expected != zoo.raw(apart[1])
    assert zoo.raw(run(fused[0], apart[1])) == expected
    for base in (fused[0], apart[0]):
        out = run(base, fused[1])
        assert zoo.raw(zoo.split_experts(out, tmp_path / f"{base.name} split")) == expected
        assert list(zoo.raw(out)) == list(zoo.raw(fused[1]))


def test_a_router_with_two_possible_partners_is_refused_or_left_alone(tmp_path: Path) -> None:
    """Mixtral's is `block_sparse_moe.gate` beside experts apart, `mlp.gate` beside fused ones."""
    apart = zoo.pair("mixtral", tmp_path)
    fused = zoo.fuse_experts(apart[1], tmp_path / "fused")
    routers = {name for name in zoo.raw(fused) if name.endswith("mlp.gate.weight")}

    def with_another(tensors: zoo.Tensors) -> zoo.Tensors:
        twins = {n.replace("gate", "other.gate"): t.clone() for n, t in tensors.items()}
        return tensors | {n: t for n, t in twins.items() if n.endswith("other.gate.weight")}

    two = zoo.rewrite(apart[0], tmp_path / "two", with_another)
    with pytest.raises(uvmerge.InputRefused, match="no counterpart in the base of 4 selected"):
        uvmerge.interpolate(two, fused, tmp_path / "refused")
    for base, expected in ((apart[0], routers), (two, set())):
        out = uvmerge.interpolate(base, fused, tmp_path / f"{base.name} out", force=base is two).out
        assert changed(out, fused) & routers == expected


# --- names that differ by a prefix -------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "text_family", "aligned"),
    [
        ("llava", "llama", True),
        ("gemma3_vision", "gemma3", True),
        ("qwen2_vl", "qwen2", False),
        ("qwen3_vl", "qwen3", True),
    ],
)
@pytest.mark.parametrize("name", ["restore", "interpolate", "reset_layers"])
def test_a_text_model_and_a_multimodal_one_are_a_pair(
    name: str, family: str, text_family: str, aligned: bool, tmp_path: Path
) -> None:
    """Their text parts are equal, so either base gives the same text part."""
    whole, text = zoo.pair(family, tmp_path / "whole"), zoo.pair(text_family, tmp_path / "text")

    def operation(base: Path, finetuned: Path, out: Path) -> uvmerge.Result:
        force = name == "interpolate"  # which would have edited the other tower too
        result: uvmerge.Result = getattr(uvmerge, name)(base, finetuned, out, force=force)
        return result

    expected = zoo.raw(operation(*text, tmp_path / "expected").out)
    mixed = operation(whole[0], text[1], tmp_path / "text out")
    assert zoo.raw(mixed.out) == expected != zoo.raw(text[1])
    assert any("names aligned" in note for note in mixed.plan.notes) == aligned

    out = operation(text[0], whole[1], tmp_path / "whole out").out
    result, before = zoo.raw(out), zoo.raw(whole[1])
    expected_whole = zoo.raw(operation(*whole, tmp_path / "expected whole").out)
    in_text = {n for n in before if before[n] in zoo.raw(text[1]).values()}
    assert {n: result[n] for n in in_text} == {n: expected_whole[n] for n in in_text}
    rest = before.keys() - in_text
    assert rest
    assert {n: result[n] for n in rest} == {n: before[n] for n in rest}
    assert_loads(out)


def test_a_tied_head_on_one_side_is_left_alone(tmp_path: Path) -> None:
    tied, untied = zoo.pair("llama_tied", tmp_path / "tied"), zoo.pair("llama", tmp_path / "untied")
    for pair in ((tied[0], untied[1]), (untied[0], tied[1])):
        result = uvmerge.restore(*pair, tmp_path / pair[1].parent.name / "out", top=0.2)
        assert zoo.raw(result.out).keys() == zoo.raw(pair[1]).keys()
        assert {n for n in changed(result.out, pair[1]) if not EDITED.fullmatch(n)} == set()
        assert_loads(result.out)


def test_integers_are_reset_as_bytes_and_never_computed_with(tmp_path: Path) -> None:
    def counted(value: int) -> Callable[[zoo.Tensors], zoo.Tensors]:
        return lambda tensors: tensors | {"model.layers.0.steps": torch.tensor([value])}

    base, finetuned = zoo.pair("llama", tmp_path)
    ours = zoo.rewrite(base, tmp_path / "b", counted(1))
    theirs = zoo.rewrite(finetuned, tmp_path / "f", counted(2))
    uvmerge.reset_layers(ours, theirs, tmp_path / "reset", layers=[0])
    uvmerge.interpolate(ours, theirs, tmp_path / "half", scale=0.5)
    steps = {n: int(zoo.tensors(tmp_path / n)["model.layers.0.steps"]) for n in ("reset", "half")}
    assert steps == {"reset": 1, "half": 2}
