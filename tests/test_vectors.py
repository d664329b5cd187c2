"""Arithmetic of merges: which values are kept, which signs are elected."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uvmerge.spectral import pieces, vectors


def rounded(n: int, seed: int = 0) -> torch.Tensor:
    """Values of few different sizes, as differences of bfloat16 numbers are."""
    dice = np.random.default_rng(seed)
    return torch.tensor(np.round(dice.normal(size=n) * 8) / 1024)


@pytest.mark.parametrize("start", [0, 1, 37, 500, 998, 1000])
@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
def test_places_of_the_ascending_order_prefer_lower_indices(start: int, scale: float) -> None:
    sizes = (rounded(1000) * scale).abs()
    values = sizes.numpy()
    for stop in {start, min(start + 1, 1000), (start + 1000) // 2, 1000}:
        found = vectors.ranked(sizes, start, stop).bool().numpy()
        inside = np.sort(values)[start:stop]
        assert np.array_equal(np.sort(values[found]), inside)
        for value in set(inside):
            equal = found[values == value]
            assert equal[: equal.sum()].all()  # those of lower index, and no others
    if not start:
        expected = np.zeros(1000, dtype=bool)
        expected[np.argsort(-values, kind="stable")[:300]] = True
        assert np.array_equal(vectors.ranked(sizes, 700, 1000).bool().numpy(), expected)


def counted_places(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The places that were counted out bit by bit, as the sample was wrong."""
    places: list[int] = []
    real = pieces._counted_out

    def spied(sizes: pieces.Pieces, count: int, place: int) -> pieces.Found:
        places.append(place)
        return real(sizes, count, place)

    monkeypatch.setattr(pieces, "_counted_out", spied)
    return places


@pytest.mark.parametrize("start", [0, 1, 333, 999])
def test_values_are_found_bit_by_bit_where_the_sample_is_wrong(
    start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = torch.cat([rounded(900).abs(), torch.tensor([0.0, -0.0, 5e-324, 1e300] * 25).double()])
    expected = pieces.value_at(pieces.whole(sizes), 1000, start)
    assert expected.value == float(sizes.abs().sort().values[start])
    monkeypatch.setattr(pieces, "TINY", 0)
    monkeypatch.setattr(pieces, "_within", lambda *_: None)
    for few in (0, 1, 40):
        monkeypatch.setattr(pieces, "FEW", few)
        parts = lambda every=1: iter(sizes[::every].split(64))  # noqa: E731
        assert pieces.value_at(parts, 1000, start) == expected


@pytest.mark.parametrize("values", ["noise", "rounded", "equal", "sorted", "pattern"])
def test_a_sample_tells_where_to_look_and_a_wrong_one_changes_nothing(
    values: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 200_001
    noise = torch.tensor(np.random.default_rng(1).normal(size=n)).abs()
    every = 55  # of so many values
    sizes = {
        "noise": noise,
        "rounded": rounded(n).abs(),
        "equal": torch.ones(n, dtype=torch.float64),
        "sorted": noise.sort().values,
        "pattern": torch.where(torch.arange(n) % every == 0, 0.0, noise),
    }[values]
    counted = counted_places(monkeypatch)
    ordered = sizes.sort().values
    for place in (0, 1, n // 10, n // 2, n - 40_000, n - 1):
        found = pieces.value_at(lambda every=1: sizes[::every].split(5000), n, place)
        value = float(ordered[place])
        smaller, equal = int((sizes < value).sum()), int((sizes == value).sum())
        assert found == pieces.Found(value, smaller, equal)
    assert bool(counted) == (values == "pattern")


def test_values_at_positions_are_those_of_the_sorted_values() -> None:
    values = torch.cat([rounded(300).abs(), torch.tensor([0.0, -0.0, torch.inf, 5e-324])])
    positions = [0, 1, 75, 151, 227, 303]
    ordered = np.sort(values.numpy())
    assert vectors.in_order(values, positions) == [ordered[p] for p in positions]


@pytest.mark.parametrize(
    ("density", "kept"), [(0, 0), (1e-9, 1), (0.29, 28), (0.5, 50), (0.999, 99), (1, 100)]
)
def test_a_density_keeps_whole_numbers_of_values(density: float, kept: int) -> None:
    delta = rounded(100) + 1  # none is zero
    found = vectors.keep_largest(delta, density)
    assert int((found != 0).sum()) == kept
    assert torch.equal(found[found != 0], delta[found != 0])


def test_signs_are_elected_by_weighted_sums() -> None:
    one, two, three = (
        torch.tensor(values, dtype=torch.float64)
        for values in ([1.0, 1, 1, 0, -2], [-3.0, -1, 2, 0, 4], [1.0, 0, -9, 0, -2])
    )
    found = vectors.agreeing_sum([one, two, three], [1.0, 1.0, 0.5], normalize=True)
    # −1.5: minus; 0: plus; −1.5: minus; nothing agrees; 1: plus
    assert found.tolist() == [-3.0, 1.0, -9.0, 0.0, 4.0]
    found = vectors.agreeing_sum([one, two, three], [1.0, 1.0, 0.5], normalize=False)
    assert found.tolist() == [-3.0, 1.0, -4.5, 0.0, 4.0]


def test_negative_weights_turn_the_sign_and_count_in_the_divisor() -> None:
    one, two = torch.tensor([2.0]).double(), torch.tensor([3.0]).double()
    assert vectors.agreeing_sum([one, two], [1.0, -1.0], normalize=True).tolist() == [3.0]
    assert vectors.weighted_sum([one, two], [1.0, -1.0]).tolist() == [-1.0]
    assert vectors.weighted_sum([one, two], [1.0, -0.5], 0.5).tolist() == [1.0]


def test_what_is_kept_is_rescaled_to_the_same_sum_of_magnitudes() -> None:
    delta = rounded(100)
    kept = vectors.keep_largest(delta, 0.3)
    found = vectors.rescaled(kept, delta)
    assert float(found.abs().sum()) == pytest.approx(float(delta.abs().sum()), rel=1e-14)
    nothing = torch.zeros_like(delta)
    assert torch.equal(vectors.rescaled(nothing, delta), nothing)
    assert torch.equal(vectors.rescaled(nothing, nothing), nothing)


def test_a_unit_vector_of_zeros_is_zeros() -> None:
    direction, size = vectors.unit(torch.zeros(3, 2).double())
    assert size == 0 and not direction.any()
    direction, size = vectors.unit(torch.tensor([[3e-200, 4e-200]], dtype=torch.float64))
    assert size == pytest.approx(5e-200) and direction.tolist()[0] == pytest.approx([0.6, 0.8])
