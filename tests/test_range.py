"""float64 checkpoints anywhere in the range of float64 are edited and measured like any other."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
import zoo

import uvmerge
from uvmerge.measure.measures import Measures

# Powers of two, which round nothing: about 1e-300, 1e-200, 1e-38 and so on.
EXPONENTS = [-996, -664, -126, 126, 664, 996]
Paths = tuple[Path, Path]


def scaled(tensors: Mapping[str, torch.Tensor], exponent: int) -> faults.Tensors:
    return {name: t.double() * 2.0**exponent for name, t in tensors.items()}


def pair(folder: Path, exponent: int) -> Paths:
    """float64 values of a base and a fine-tuned checkpoint, times 2^exponent."""
    plain = faults.tensors(layers=1)
    of = {"base": plain, "finetuned": faults.tuned(plain)}
    base, finetuned = (faults.write(folder / n, scaled(t, exponent)) for n, t in of.items())
    return base, finetuned


EDITS: list[tuple[str, dict[str, Any]]] = [
    ("restore", {"rank": 5}),
    ("restore", {"energy": 0.5}),
    ("restore", {"tail": 0.2, "values": "base"}),
    ("swap", {"left": True, "align": "match"}),
    ("project", {"side": "two", "energy": 0.9}),
    ("values", {"top": 0.5}),
    ("interpolate", {"scale": 0.3}),
    ("lines", {}),
    ("denoise", {}),
    ("truncate", {"rank": 3}),
    ("damp_intruders", {"threshold": 0.99}),
]
EDIT = pytest.mark.parametrize(("operation", "options"), EDITS, ids=str)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Paths]:
    folder = tmp_path_factory.mktemp("range")
    return {exponent: pair(folder / str(exponent), exponent) for exponent in [0, *EXPONENTS]}


@EDIT
def test_an_edit_scales_with_its_operands(
    operation: str, options: dict[str, Any], pairs: dict[int, Paths], tmp_path: Path
) -> None:
    """float32, in which `fast` computes, could not hold these operands."""
    edit = getattr(uvmerge, operation)
    plain = edit(*pairs[0], tmp_path / "plain", **options)
    expected = zoo.tensors(plain.out)
    for exponent in EXPONENTS:
        for precision in ("exact", "fast"):
            out = tmp_path / f"{exponent}-{precision}"
            found = edit(*pairs[exponent], out, precision=precision, **options)
            before = zoo.tensors(pairs[0][1])
            for name, tensor in zoo.tensors(out).items():
                edited = float((expected[name] - before[name]).norm())
                missed = float((tensor * 2.0**-exponent - expected[name]).norm())
                assert missed <= 1e-9 * edited, (name, exponent, precision)
            for name, record in found.edits.items():
                said = "exact" if precision == "fast" else None
                assert record.pop("precision", None) == said
                assert record == plain.edits[name]


def test_a_pair_of_two_dtypes_and_sizes_is_computed_in_one_policy(tmp_path: Path) -> None:
    """The base alone is beyond the range of float32; the edit fits float32 where it is stored."""
    plain = faults.tensors(layers=1)
    base = faults.write(tmp_path / "base", scaled(plain, -664))
    finetuned = faults.write(tmp_path / "finetuned", faults.tuned(plain))
    result = uvmerge.project(base, finetuned, tmp_path / "out", rank=3, precision="fast")
    zeros = faults.write(tmp_path / "zeros", {n: 0 * t.double() for n, t in plain.items()})
    assert {record["precision"] for record in result.edits.values()} == {"exact"}
    assert uvmerge.diff(zeros, base, precision="fast").verdict == "related"
    W, W_b = zoo.tensors(finetuned)[faults.Q.format(0)].double(), plain[faults.Q.format(0)].double()
    U, _, Vh = torch.linalg.svd(W_b)
    P, Q = U[:, :3], Vh[:3].mT
    found = zoo.tensors(result.out)[faults.Q.format(0)]
    torch.testing.assert_close(found.double(), W - P @ (P.mT @ W @ Q) @ Q.mT, atol=1e-6, rtol=0)


def test_a_difference_beyond_float64_is_an_error_with_the_name_of_the_tensor(
    tmp_path: Path,
) -> None:
    base = {n: t.double().sign() * 1.5e308 for n, t in faults.tensors(layers=1).items()}
    pair = faults.pair_of(tmp_path, base, {n: -t for n, t in base.items()})
    for command in (("restore",), ("interpolate", "--scale", "0.5"), ("project",)):
        outcome = faults.uvmerge(*command, *pair[:2], tmp_path / command[0])
        faults.failed(outcome, "error: model.", code=1)
        assert "Error:" not in outcome.err
    faults.failed(faults.uvmerge("diff", *pair[:2]), "error: model.layers.0.", code=1)


# --- diff --------------------------------------------------------------------------------------


def figures(measures: Measures, exponent: int) -> dict[str, Any]:
    change, size = measures.change, 2.0**-exponent
    return {
        "k": measures.k, "intruders": measures.intruders, "is_chance": measures.is_chance,
        "relative": change.relative, "cosine": change.cosine, "diagonal": change.diagonal,
        "rotation": change.rotation, "structureless": change.structureless,
        "stable rank": change.stable_rank, "effective rank": change.effective_rank,
        "leading energy": change.leading_energy(3), "gap": measures.gap_over_change,
        "norm": change.norm * size, "value change": measures.value_change,
        **{side: getattr(measures, side).mean for side in ("left", "right")},
        "alignment": measures.left.alignment,
        "base values": [value * size for value in measures.base_values],
        "finetuned values": [value * size for value in measures.finetuned_values],
        "change values": [value * size for value in change.values],
    }  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"energy": 0.6}], ids=["top", "energy"])
def test_measures_know_no_scale(options: dict[str, Any], pairs: dict[int, Paths]) -> None:
    plain = uvmerge.diff(*pairs[0], **options).compared[0]
    for exponent in EXPONENTS:
        for precision in ("exact", "fast"):
            found = uvmerge.diff(*pairs[exponent], precision=precision, **options).compared[0]
            assert found.verdict == plain.verdict == "related"
            for one, other in zip(found.entries, plain.entries, strict=True):
                assert one.measures is not None and other.measures is not None
                measured, expected = figures(one.measures, exponent), figures(other.measures, 0)
                for key, value in measured.items():
                    assert value == pytest.approx(expected[key], rel=1e-6, abs=1e-9), key
            assert len(found.others) == len(plain.others) > 0
            for tensor, as_plain in zip(found.others, plain.others):
                assert tensor.relative == pytest.approx(as_plain.relative, rel=1e-12)


@pytest.mark.parametrize("exponent", [-996, 996])
def test_several_checkpoints_and_the_files_of_a_report(
    exponent: int, pairs: dict[int, Paths], tmp_path: Path
) -> None:
    def report(of: int) -> dict[str, Any]:
        base, finetuned = pairs[of]
        third = uvmerge.interpolate(base, finetuned, tmp_path / f"third-{of}", scale=0.5).out
        out = tmp_path / f"report-{of}"
        assert faults.uvmerge("diff", base, finetuned, third, "--out", out).code == 0
        found: dict[str, Any] = json.loads((out / "report.json").read_text())
        return found

    plain, found = report(0), report(exponent)
    for one, other in zip(found["pairs"], plain["pairs"], strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    for one, other in zip(found["checkpoints"], plain["checkpoints"], strict=True):
        for matrix, expected in zip(one["matrices"], other["matrices"], strict=True):
            assert math.isfinite(matrix["values"]["base"][0]) and matrix["values"]["base"][0] > 0
            for key in ("relative_delta", "k", "intruders"):
                assert matrix[key] == pytest.approx(expected[key], rel=1e-5), key
