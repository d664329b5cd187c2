"""Random numbers of merges: known answers, and what they depend on."""

from __future__ import annotations

import hashlib

import pytest
import torch

from uvmerge.spectral import draw as drawing
from uvmerge.spectral.draw import Draw

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


def philox(counter: int, key: int) -> list[int]:
    """Philox4x64-10, from its definition: four numbers of 64 bits."""
    mask = 2**64 - 1
    a, b, c, d = (counter >> 64 * i & mask for i in range(4))
    low, high = key & mask, key >> 64
    for _ in range(10):
        p, q = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (q >> 64) ^ b ^ low, q & mask, (p >> 64) ^ d ^ high, p & mask
        low, high = low + STEPS[0] & mask, high + STEPS[1] & mask
    return [a, b, c, d]


def test_the_definition_used_here_gives_the_authors_known_answer() -> None:
    found = [f"{word:016x}" for word in philox(0, 0)]
    assert found == ["16554d9eca36314c", "db20fe9d672d0fdc", "d7e772cee186176b", "7e68b68aec7ba23b"]


def test_numbers_are_those_of_philox_under_the_key() -> None:
    digest = hashlib.sha256(b"7\n2\nmodel.norm.weight").digest()
    key = int.from_bytes(digest[:16], "little")
    raw = [word for counter in range(3) for word in philox(counter, key)]
    found = Draw(7, "model.norm.weight")(2, (2, 6))
    assert found.dtype == torch.float64 and found.shape == (2, 6)
    assert found.flatten().tolist() == [(word >> 11) * 2.0**-53 for word in raw]


@pytest.mark.parametrize("piece", [4, 7, 100])
def test_numbers_do_not_depend_on_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Draw(0, "w")(0, (13, 11))
    monkeypatch.setattr(drawing, "_PIECE", piece)
    assert torch.equal(Draw(0, "w")(0, (13, 11)), whole)
    assert torch.equal(Draw(0, "w")(0, (50,)), whole.flatten()[:50])  # nor on what follows


def test_seed_label_and_model_each_give_other_numbers() -> None:
    draws = [
        *(Draw(seed, label)(model, (64,)) for seed in (0, 1) for label in "ab" for model in (0, 1)),
        Draw(1, "1\na")(0, (64,)),
    ]
    assert len({tuple(each.tolist()) for each in draws}) == 9
    for i, each in enumerate(draws):
        assert all(float((each - other).abs().min()) > 0 for other in draws[:i])


def test_numbers_are_uniform() -> None:
    numbers = Draw(3, "x")(1, (100_000,))
    assert float(numbers.min()) >= 0 and float(numbers.max()) < 1
    counts = torch.histc(numbers, 50, 0, 1)
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 95  # χ² of 49 degrees: p = 1e-4
    lagged = torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1]
    assert abs(float(lagged)) < 0.013


@pytest.mark.parametrize("shape", [(), (0,), (1, 1), (3, 0)])
def test_any_shape_is_drawn(shape: tuple[int, ...]) -> None:
    assert Draw(0, "x")(0, shape).shape == shape
