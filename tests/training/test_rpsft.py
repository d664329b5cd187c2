"""The penalty as a function of tensors: its value, its gradient, and what it cannot see."""

from __future__ import annotations

from pathlib import Path

import anchors
import pytest
import torch
from torch import Tensor

from uvmerge import InputRefused, UsageError
from uvmerge.training import RotationAnchor
from uvmerge.training.rpsft import Dense, LowRank, Projection

VIEWS = [
    ("two", "block"), ("two", "rot"), ("two", "diag"), ("left", "block"), ("right", "block"),
    ("none", "block"),
]  # fmt: skip


def projection(side: str, part: str, m: int = 9, n: int = 7, k: int = 3) -> Projection:
    torch.manual_seed(1)
    U, V = (torch.linalg.qr(torch.randn(d, k, dtype=torch.float64))[0] for d in (m, n))
    return Projection(
        U if side in ("two", "left") else None, V if side in ("two", "right") else None, part
    )


def seen(view: Projection, change: Tensor) -> Tensor:
    """What the penalty is by its definition."""
    D = change if view.U is None else view.U.T @ change
    D = D if view.V is None else D @ view.V
    mask = torch.eye(*D.shape, dtype=torch.bool) if view.part != "block" else None
    if mask is not None:
        D = D[mask if view.part == "diag" else ~mask]
    return (D**2).sum()


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(("side", "part"), VIEWS)
def test_closed_form_is_the_derivative_of_the_definition(side: str, part: str, kept: bool) -> None:
    view = projection(side, part)
    start, change = torch.randn(2, 9, 7, dtype=torch.float64)
    dense = Dense(view, start if kept else view.of(start).clone(), kept)
    W = (start + change).requires_grad_()
    by_definition = seen(view, W - start)
    (wanted,) = torch.autograd.grad(by_definition, W)
    D = dense.change(W)
    torch.testing.assert_close(dense.value(D), by_definition)
    (automatic,) = torch.autograd.grad(dense.value(D), W)
    closed = dense.gradient(D.detach(), 1.0, W.dtype)
    torch.testing.assert_close(automatic, wanted)
    torch.testing.assert_close(closed, wanted, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("side", "part"), VIEWS)
def test_adapter_costs_what_the_merged_weight_costs(side: str, part: str) -> None:
    view, scale = projection(side, part), 1.7
    B = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    A = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    merged = seen(view, scale * B @ A)
    wanted = torch.autograd.grad(merged, (B, A))
    adapter = LowRank(view, scale)
    sides = adapter.sides(B, A)
    torch.testing.assert_close(adapter.value(*sides), merged, rtol=1e-6, atol=0)
    automatic = torch.autograd.grad(adapter.value(*sides), (B, A), retain_graph=True)
    closed = adapter.gradients(*(each.detach() for each in sides), 1.0)
    for one, two, three in zip(wanted, automatic, closed, strict=True):
        torch.testing.assert_close(two, one)
        torch.testing.assert_close(three, one, rtol=1e-6, atol=1e-12)


def test_an_update_outside_the_block_costs_nothing() -> None:
    view = projection("two", "block")
    W = torch.randn(9, 7, dtype=torch.float64)
    outside = torch.randn(9, 7, dtype=torch.float64)
    outside -= view.adjoint(view.of(outside))
    dense = Dense.at(W, view)
    assert dense.value(dense.change(W + outside)) < 1e-25
    assert dense.gradient(dense.change(W + outside), 1.0, W.dtype).abs().max() < 1e-12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("anchors")


def anchored(folder: Path, model: torch.nn.Module, k: int = 6, **options: object) -> RotationAnchor:
    factor_dtype = options.pop("factors", torch.bfloat16)
    path = folder / f"{k}-{factor_dtype}-{next(model.parameters()).dtype}"
    if not path.exists():
        weights = anchors.layer_matrices(model)
        anchors.build(path, weights, k, factor_dtype)  # type: ignore[arg-type]
    return RotationAnchor.load(path, **options)  # type: ignore[arg-type]


def moved(model: torch.nn.Module, by: float) -> dict[str, Tensor]:
    """Move a model's weights at random; returns the change of the matrices in its layers."""
    before = {name: p.detach().clone() for name, p in anchors.layer_matrices(model).items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn_like(parameter)
    after = anchors.layer_matrices(model)
    return {name: (after[name].detach() - before[name]).double() for name in before}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factors", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", ["two", "left", "right"])
def test_penalty_is_exactly_zero_at_the_start_and_right_after_it(
    folder: Path, dtype: torch.dtype, factors: torch.dtype, side: str
) -> None:
    model = anchors.llama(dtype)
    anchor = anchored(folder, model, side=side, factors=factors, strength=2.0)
    assert anchor.penalty(model).item() == 0.0 and anchor.drift(model) == 0.0
    added = anchor.add_gradient(model)
    assert added is not None and added.item() == 0.0
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
    changes, wanted = moved(model, 1e-3), 0.0
    for name, change in changes.items():
        U, V = anchor.file.factors(name, dtype=torch.float64)
        used = Projection(U if side != "right" else None, V if side != "left" else None)
        wanted += 2.0 * float(seen(used, change))
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    assert anchor.penalty(model).item() == pytest.approx(wanted, rel=tolerance)


def test_gradient_of_the_graph_and_without_one_agree(folder: Path) -> None:
    model = anchors.llama()
    anchor = anchored(folder, model)
    anchor.bind(model)
    moved(model, 1e-2)
    torch.autograd.backward(anchor.penalty(model))
    by_graph = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    value = anchor.add_gradient(model, scale=3.0)
    assert value == pytest.approx(anchor.penalty(model).item())
    assert by_graph.keys() == anchors.layer_matrices(model).keys()
    for name, parameter in anchors.layer_matrices(model).items():
        torch.testing.assert_close(parameter.grad, 3.0 * by_graph[name], rtol=1e-5, atol=1e-7)


def test_matrices_anchored_as_a_whole_cost_their_whole_change(folder: Path) -> None:
    model = anchors.llama()
    anchor = anchored(folder, model, k=1000)
    assert all(matrix.full for matrix in anchor.file.matrices.values())
    assert anchor.penalty(model).item() == 0.0
    wanted = sum(float((change**2).sum()) for change in moved(model, 1e-3).values())
    assert anchor.penalty(model).item() == pytest.approx(wanted, rel=1e-5)


def test_start_weights_are_kept_in_16_bit_alone(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = anchors.llama(dtype)
        matrices = anchors.layer_matrices(model).values()
        terms = anchored(folder, model).bind(model).terms.values()
        factors, starts = (sum(each) for each in zip(*(t.memory for t in terms), strict=True))
        assert factors == sum(2 * 6 * sum(W.shape) for W in matrices)
        blocks, weights = 4 * 6 * 6 * len(terms), sum(W.nbytes for W in matrices)
        assert starts == (blocks if dtype == torch.float32 else weights)
    assert "start blocks 2.02 KB" in caplog.messages[0]
    assert "start weights, kept for the precision of the training 30.7 KB" in caplog.messages[1]


def test_every_nth_step_has_n_times_the_gradient(folder: Path) -> None:
    model = anchors.llama()
    once, thrice = anchored(folder, model), anchored(folder, model, every=3)
    once.bind(model), thrice.bind(model)
    moved(model, 1e-2)
    once.add_gradient(model)
    wanted = [p.grad.clone() for p in anchors.layer_matrices(model).values()]  # type: ignore
    model.zero_grad()
    assert [thrice.add_gradient(model) is None for _ in range(3)] == [True, True, False]
    for parameter, gradient in zip(anchors.layer_matrices(model).values(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, 3 * gradient)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": "both"}, "side: 'both' is not known\n  Take two, left, right."),
        ({"part": "all"}, "part: 'all' is not known"),
        ({"start": "base"}, "start: 'base' is not known"),
        ({"part": "rot", "side": "left"}, "one side has no rot part"),
        ({"every": 0}, "every: 0 is not a number of steps"),
        ({"strength": -1.0}, "strength: -1.0 is not a number from 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    folder: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        anchored(folder, anchors.llama(), **options)
    assert words in str(caught.value)


def test_a_part_of_a_matrix_without_factors_is_refused(folder: Path) -> None:
    with pytest.raises(InputRefused, match=r"down_proj\.weight: .* no diag part"):
        anchored(folder, anchors.llama(), k=1000, part="diag")
