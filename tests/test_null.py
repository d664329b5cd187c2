"""What chance gives, against simulation: random subspaces, random matrices, rounding."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
import reference
import torch
from reference import Array

from uvmerge.measure.judgement import BAND_SD
from uvmerge.measure.null import ROUNDING, RandomMatrix, RandomSubspaces, best_cosine

# (d, k), and how many times it is drawn: k = 1, d − 1 and d, c under, at and above 1/2, tiny d.
SHAPES = {
    (2, 1): 2000, (3, 2): 2000, (7, 3): 1000, (10, 1): 2000, (10, 5): 1000, (10, 9): 2000,
    (10, 10): 2, (64, 1): 1000, (64, 8): 400, (64, 32): 200, (64, 48): 200, (64, 63): 300,
    (200, 20): 60, (200, 100): 20, (200, 150): 20, (256, 256): 1, (400, 399): 3, (512, 5): 40,
}  # fmt: skip
EVERY_SHAPE = pytest.mark.parametrize(("d", "k"), SHAPES, ids=lambda number: str(number))


@lru_cache(maxsize=32)
def simulated(d: int, k: int) -> Array:
    """Angles (runs, k), ascending, of random subspaces with the span of the first k axes."""
    random = np.random.default_rng(d * 1000 + k)
    return np.array([angles(reference.basis(d, k, random)) for _ in range(SHAPES.get((d, k), 1))])


def angles(Q: Array) -> Array:
    """Of the span of Q (d, k) with that of the first k axes: cosines are the singular values of its
    first k rows, sines those of the others."""
    d, k = Q.shape
    cosines = np.linalg.svd(Q[:k], compute_uv=False).clip(0, 1)
    sines = np.zeros(k)
    sines[: min(k, d - k)] = np.linalg.svd(Q[k:], compute_uv=False).clip(0, 1)
    sines = np.sort(sines)
    return np.where(sines**2 < 0.5, np.arcsin(sines), np.arccos(cosines))


# --- subspaces ---------------------------------------------------------------------------------


@EVERY_SHAPE
def test_simulated_angles_stay_inside_the_band(d: int, k: int) -> None:
    low, high = RandomSubspaces(d, k).band()
    found = simulated(d, k)
    assert (found >= np.array(low) - 1e-12).all()
    assert (found <= np.array(high) + 1e-12).all()


@EVERY_SHAPE
def test_expected_angles_are_the_mean_of_simulated_ones_to_less_than_one_rank(
    d: int, k: int
) -> None:
    expected = RandomSubspaces(d, k).angles()
    assert list(expected) == sorted(expected)
    runs = len(simulated(d, k))
    mean, spread = simulated(d, k).mean(0), simulated(d, k).std(0) * BAND_SD / math.sqrt(runs)
    rank = 1 / math.sqrt(d * k)  # about the distance of neighbours in the middle, in radians
    before = np.r_[0.0, expected[:-1]] - spread - rank
    after = np.r_[expected[1:], math.pi / 2] + spread + rank
    assert ((before <= mean) & (mean <= after)).all()


@EVERY_SHAPE
def test_the_band_contains_what_is_expected_and_is_narrow_where_there_are_many(
    d: int, k: int
) -> None:
    chance = RandomSubspaces(d, k)
    low, high = (np.array(side) for side in chance.band())
    expected = np.array(chance.angles())
    assert ((low <= expected) & (expected <= high)).all()
    assert (low >= 0).all() and (high <= math.pi / 2).all()
    if 20 <= k < d:  # six ranks, of which there are `free` in up to π/2, and twice the margin
        free = min(k, d - k)
        assert np.median((high - low)[k - free :]) < 6 * math.pi / 2 / free + 4 / math.sqrt(d * k)


@pytest.mark.parametrize(("d", "k"), [(200, 20), (64, 8), (512, 5), (300, 60), (64, 48), (64, 63)])
def test_the_band_of_the_smallest_angles_does_not_hold_zeros_but_for_the_forced(
    d: int, k: int
) -> None:
    """Else angles of 0, which related matrices show first, would lie inside of it."""
    low, high = RandomSubspaces(d, k).band()
    zeros, free = max(0, 2 * k - d), min(k, d - k)
    edge = math.acos(math.sqrt(4 * (free / d) * (1 - free / d)))
    assert min(low[zeros:]) == pytest.approx(max(0, edge - 2 / (d * free) ** (1 / 3)), abs=1e-3)
    assert all(limit <= 2 / math.sqrt(d * k) for limit in high[:zeros])


@EVERY_SHAPE
def test_forced_zeros_are_those_and_no_others(d: int, k: int) -> None:
    chance = RandomSubspaces(d, k)
    assert chance.zeros == max(0, 2 * k - d)
    assert ((simulated(d, k) < 1e-7).sum(1) == chance.zeros).all()
    assert sum(angle == 0 for angle in chance.angles()) == chance.zeros


@EVERY_SHAPE
def test_mean_of_squared_sines_is_the_square_of_the_chordal_distance(d: int, k: int) -> None:
    squares = (np.sin(simulated(d, k)) ** 2).mean(1)
    deviation = k * (d - k) / d * math.sqrt(2 / max(1, (d - 1) * (d + 2))) / k
    error = BAND_SD * deviation / math.sqrt(len(squares))
    assert abs(squares.mean() - RandomSubspaces(d, k).chordal ** 2) <= error + 1e-12


@EVERY_SHAPE
def test_simulated_chordal_distances_stay_inside_their_band(d: int, k: int) -> None:
    """Also for one vector, whose cos² is chi-square: four deviations of it are passed once in 100."""
    low, high = RandomSubspaces(d, k).chordal_band
    found = np.sqrt((np.sin(simulated(d, k)) ** 2).mean(1))
    assert low - 1e-12 <= found.min() and found.max() <= high + 1e-12


@pytest.mark.parametrize("d", [20, 300, 4096])
def test_one_vector_is_told_from_chance_once_in_ten_thousand(d: int) -> None:
    """cos² of a random vector with an axis is z²/d for large d: 4 deviations of a normal law, one
    side, are 3 in 100,000, which z² passes at 17.3."""
    nearest = 1 - RandomSubspaces(d, 1).chordal_band[0] ** 2
    assert 15 < nearest * d < 20


@pytest.mark.parametrize(("d", "k"), [(300, 60), (300, 150), (1024, 768)])
def test_the_chordal_band_is_four_deviations_where_there_are_many_angles(d: int, k: int) -> None:
    chance = RandomSubspaces(d, k)
    deviation = (d - k) / d * math.sqrt(2 / ((d - 1) * (d + 2)))
    low, high = (edge**2 - chance.chordal**2 for edge in chance.chordal_band)
    assert low == pytest.approx(-4 * deviation, rel=0.1)
    assert high == pytest.approx(4 * deviation, rel=0.1)


@pytest.mark.parametrize(("d", "k"), [(200, 20), (512, 5), (64, 8)])
def test_smallest_angle_is_that_of_the_limit_below_half_of_the_space(d: int, k: int) -> None:
    c = k / d
    edge = math.acos(math.sqrt(4 * c * (1 - c)))
    assert RandomSubspaces(d, k).smallest == pytest.approx(edge)
    # Edges of such laws move by the power −2/3 of the size (Johnstone 2008); inwards on average.
    assert 0 < simulated(d, k)[:, 0].mean() - edge < 3 * d ** (-2 / 3)


@pytest.mark.parametrize(("d", "k"), [(10, 5), (10, 9), (4, 4)])
def test_smallest_angle_is_zero_from_half_of_the_space_on(d: int, k: int) -> None:
    assert RandomSubspaces(d, k).smallest == 0


def test_a_thousand_and_twenty_four_with_seven_hundred_and_sixty_eight() -> None:
    chance = RandomSubspaces(1024, 768)
    assert chance.zeros == 512
    assert chance.chordal == 0.5
    assert sum(angle == 0 for angle in chance.angles()) == 512
    low, high = chance.chordal_band
    assert 0.49 < low < 0.5 < high < 0.51


def test_no_vectors_have_no_angles() -> None:
    chance = RandomSubspaces(10, 0)
    assert chance.angles() == () and chance.band() == ((), ())
    assert chance.zeros == 0 and not chance.says_something
    assert chance.chordal_band == (1.0, 1.0)


@pytest.mark.parametrize(("d", "k"), [(10, 10), (1, 1), (100, 99), (1000, 995)])
def test_subspaces_that_fill_the_space_say_nothing(d: int, k: int) -> None:
    assert not RandomSubspaces(d, k).says_something


@pytest.mark.parametrize(("d", "k"), [(64, 8), (1024, 768), (300, 1), (4096, 819)])
def test_others_do(d: int, k: int) -> None:
    assert RandomSubspaces(d, k).says_something


@pytest.mark.parametrize(("d", "k"), [(32, 6), (64, 1), (64, 64), (300, 60)])
def test_best_cosine_is_the_median_of_simulated_ones(d: int, k: int) -> None:
    random = np.random.default_rng(0)
    directions = random.standard_normal((4000, d))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    found = np.median(abs(directions[:, :k]).max(1))
    assert best_cosine(d, k) == pytest.approx(found, rel=0.03)


def test_best_cosine_at_the_edges() -> None:
    assert best_cosine(10, 0) == 0
    assert best_cosine(1, 1) == 1  # the one vector there is
    for d in (2, 3, 5):
        assert 1 / math.sqrt(d) <= best_cosine(d, d) <= 1


# --- matrices ----------------------------------------------------------------------------------

MATRICES = {
    (1, 1): 2000, (1, 40): 400, (40, 1): 400, (5, 60): 300, (36, 60): 100, (60, 36): 100,
    (48, 48): 100, (64, 512): 20, (200, 150): 10,
}  # fmt: skip
EVERY_MATRIX = pytest.mark.parametrize(("m", "n"), MATRICES, ids=lambda number: str(number))


@lru_cache(maxsize=32)
def simulated_values(m: int, n: int) -> Array:
    """Singular values (runs, r) of independent normal entries of variance 1/max(m, n)."""
    random = np.random.default_rng(m * 1000 + n)
    draws = (random.standard_normal((m, n)) for _ in range(MATRICES[m, n]))
    return np.array([np.linalg.svd(W, compute_uv=False) for W in draws]) / math.sqrt(max(m, n))


@EVERY_MATRIX
def test_expected_values_are_the_mean_of_simulated_ones(m: int, n: int) -> None:
    expected, found = np.array(RandomMatrix(m, n).values()), simulated_values(m, n)
    assert len(expected) == min(m, n)
    assert (np.diff(expected) <= 0).all()
    error = found.std(0) * BAND_SD / math.sqrt(len(found))
    # In the middle values lie about 2/r apart; at the soft edges the mean is a part of that away.
    assert (abs(expected - found.mean(0)) <= error + 0.5 / min(m, n)).all()


@EVERY_MATRIX
def test_stable_rank_of_simulated_matrices_is_that_of_chance(m: int, n: int) -> None:
    S = simulated_values(m, n)
    found = ((S**2).sum(1) / S[:, 0] ** 2).mean()
    expected = RandomMatrix(m, n).stable_rank
    # The largest value comes short of its limit by a Tracy–Widom deviation or two.
    shortfall = 3 * min(m, n) ** (-2 / 3)
    assert expected * 0.99 <= found <= expected * (1 + shortfall)


@EVERY_MATRIX
def test_leading_energy_of_simulated_matrices_is_that_of_chance(m: int, n: int) -> None:
    S = simulated_values(m, n)
    for k in sorted({0, 1, -(-min(m, n) // 5), min(m, n)}):
        found = ((S[:, :k] ** 2).sum(1) / (S**2).sum(1)).mean()
        assert RandomMatrix(m, n).leading_energy(k) == pytest.approx(found, abs=0.02)


# --- rounding ----------------------------------------------------------------------------------

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@pytest.mark.parametrize("scale", [1.0, 0.02, 0.7, 1.3])
@pytest.mark.parametrize("name", DTYPES)
def test_rounding_is_that_of_torch_for_normal_numbers(name: str, scale: float) -> None:
    """Their mantissas are spread on a logarithmic scale to half a percent, whatever the scale."""
    draw = torch.Generator().manual_seed(0)
    exact = scale * torch.randn(200_000, generator=draw, dtype=torch.float64)
    error = exact.to(DTYPES[name]).double() - exact
    assert float(error.norm() / exact.norm()) == pytest.approx(ROUNDING[name], rel=0.01)


# --- as a module -------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["judgement", "null", "measures"])
def test_chance_and_measures_are_plain_numbers_without_torch(module: str) -> None:
    code = f"import sys, uvmerge.measure.{module}\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
