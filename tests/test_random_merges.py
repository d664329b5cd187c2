"""DARE and DELLA: which elements are kept, with which probability, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from uvmerge.errors import UsageError
from uvmerge.operations.dare_linear import dare_linear
from uvmerge.operations.dare_ties import dare_ties
from uvmerge.operations.della import della
from uvmerge.operations.della_linear import della_linear
from uvmerge.spectral.draw import Draw
from uvmerge.spectral.masks import thinned_by_rank
from uvmerge.spectral.matrix import DenseOperand
from uvmerge.spectral.precision import EXACT

every = pytest.mark.parametrize("merge", [dare_linear, dare_ties, della, della_linear])
Merge = Callable[..., Any]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operand(values: Tensor) -> DenseOperand:
    return DenseOperand("w", values, EXACT)


def call(merge: Merge, base: Tensor, *models: Tensor, label: str = "w", **options: Any) -> Tensor:
    """The result of a merge; numbers for each model may be one number for all."""
    per_model = {"weight": 1.0, "density": 1.0} | (
        {"epsilon": 0.15} if merge in (della, della_linear) else {}
    )
    for name, value in per_model.items():
        given = options.get(name, value)
        options[name] = given if isinstance(given, tuple) else (given,) * len(models)
    draw = Draw(options.get("seed", 0), label)
    found: Tensor = merge(operand(base), *map(operand, models), draw=draw, **options)
    return found


@every
def test_a_density_of_one_adds_everything(merge: Merge) -> None:
    base, one, two = (noise(6, 8, seed=i) for i in range(3))
    found = call(merge, base, one, base + 2 * (one - base), scale=0.5, weight=(1.0, 2.0))
    expected = base + 0.5 * (one - base) * (1 + 2 * 2) / (3 if merge is della else 1)
    torch.testing.assert_close(found, expected)
    if merge in (dare_linear, della_linear):
        both = call(merge, base, one, two, normalize=True, weight=(3.0, 1.0))
        torch.testing.assert_close(both, 0.75 * one + 0.25 * two)


@every
@pytest.mark.parametrize("shape", [(40, 50), (1, 2000), (2000,), (20, 10, 10)])
def test_what_is_kept_is_the_difference_over_its_probability(
    merge: Merge, shape: tuple[int, ...]
) -> None:
    base, model = noise(*shape), noise(*shape, seed=1)
    ratio = (call(merge, base, model, density=0.6) - base) / (model - base)
    kept = ratio.abs() > 1e-9
    assert abs(float(kept.double().mean()) - 0.6) < 0.05
    low, high = (1 / 0.6, 1 / 0.6) if merge in (dare_linear, dare_ties) else (1 / 0.75, 1 / 0.45)
    assert float(ratio[kept].min()) > low - 1e-9 and float(ratio[kept].max()) < high + 1e-9
    assert abs(float(ratio.mean()) - 1) < 0.08  # kept in expectation


@every
def test_a_density_of_zero_keeps_nothing(merge: Merge) -> None:
    assert torch.equal(call(merge, noise(5, 4), noise(5, 4, seed=1), density=0.0), noise(5, 4))


@every
def test_masks_hang_on_seed_tensor_and_model_alone(merge: Merge) -> None:
    base, model = noise(30, 30), noise(30, 30, seed=1)

    def mask(**options: Any) -> Tensor:
        return call(merge, base, model, density=0.5, **options) != base

    assert torch.equal(mask(), mask(scale=0.3, rescale_by="norm"))
    others = [mask(), mask(seed=1), mask(label="v")]
    assert len({tuple(each.flatten().tolist()) for each in others}) == 3
    second = call(merge, base, base, model, density=0.5) != base
    assert not torch.equal(second, mask()) and abs(float(second.double().mean()) - 0.5) < 0.1


@every
def test_what_is_kept_may_be_rescaled_to_its_norm_or_not_at_all(merge: Merge) -> None:
    base, model = noise(30, 40), noise(30, 40, seed=1)
    plain = call(merge, base, model, density=0.3, rescale=False) - base
    kept = plain.abs() > 1e-12
    torch.testing.assert_close(plain[kept], (model - base)[kept])
    scaled = call(merge, base, model, density=0.3, rescale_by="norm") - base
    size = float((model - base).abs().sum())
    assert float(scaled.abs().sum()) == pytest.approx(size)
    torch.testing.assert_close(scaled, plain * (size / float(plain.abs().sum())))


@pytest.mark.parametrize("merge", [dare_ties, della])
def test_the_signs_are_elected_among_what_is_kept(merge: Merge) -> None:
    base = torch.zeros(50, 40, dtype=torch.float64)
    one, two = torch.ones_like(base), -3 * torch.ones_like(base)
    found = call(merge, base, one, two, density=0.5, rescale=False, normalize=True)
    assert set(found.unique().tolist()) == {-3.0, 0.0, 1.0}  # never the mean of both
    assert abs(float((found == 1).double().mean()) - 0.25) < 0.05  # two is dropped, one is kept


@pytest.mark.parametrize("merge", [della, della_linear])
def test_small_elements_of_a_row_are_kept_more_rarely(merge: Merge) -> None:
    base = torch.zeros(4000, 5, dtype=torch.float64)
    model = torch.tensor([3.0, -1.0, 5.0, 2.0, -4.0]).double() * (1 + torch.arange(4000))[:, None]
    kept = call(merge, base, model, density=0.5, epsilon=0.4, rescale=False) != 0
    shares = kept.double().mean(0)
    assert (shares - torch.tensor([0.5, 0.1, 0.9, 0.3, 0.7]).double()).abs().max() < 0.03


def test_equal_magnitudes_are_ranked_by_place() -> None:
    delta = torch.tensor([2.0, -1, 1, 1, -2], dtype=torch.float64)
    places = {}
    for number in (0.0999, 0.1001, 0.2999, 0.3001, 0.4999, 0.5001, 0.6999, 0.7001, 0.8999):
        numbers = torch.full_like(delta, number)
        kept = thinned_by_rank(delta, numbers, 0.5, 0.4, rescale=False)
        places[number] = (kept != 0).nonzero().flatten().tolist()
    assert places[0.0999] == [0, 1, 2, 3, 4] and places[0.1001] == [0, 2, 3, 4]
    assert places[0.3001] == [0, 3, 4] and places[0.5001] == [0, 4]
    assert places[0.7001] == places[0.8999] == [4]


@pytest.mark.parametrize("merge", [della, della_linear])
@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.15), (0.9, 0.15)])
def test_probabilities_outside_their_range_are_refused_before_values_are_read(
    merge: Merge, density: float, epsilon: float
) -> None:
    with pytest.raises(UsageError, match=r"--epsilon: 0.15 is too much for a density of 0.\d"):
        merge(None, None, draw=None, weight=(1.0,), density=(density,), epsilon=(epsilon,))


@pytest.mark.parametrize("merge", [della, della_linear])
def test_a_row_of_one_element_has_the_density_itself(merge: Merge) -> None:
    base = torch.zeros(3000, 1, dtype=torch.float64)
    found = call(merge, base, base + 1, density=0.3)
    assert set(found.unique().tolist()) == {0.0, 1 / 0.3}
    assert abs(float((found != 0).double().mean()) - 0.3) < 0.03
