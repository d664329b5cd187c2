"""What must come out to the byte: settings that change nothing, and circumstances that must not."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import zoo

import uvmerge
from uvmerge.engine.rounding import round_once
from uvmerge.engine.settings import Control
from uvmerge.recipe.recipe import Recipe

Pair = tuple[Path, Path]
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return zoo.pair("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same tensors as `pair`, in several files."""
    return zoo.pair("llama", tmp_path_factory.mktemp("sharded"), shard_bytes=zoo.SHARD_BYTES)


@pytest.fixture(scope="module")
def restored(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed restore of `pair` gives."""
    return restore(pair, tmp_path_factory.mktemp("restored") / "out")


def restore(pair: Pair, out: Path, **options: Any) -> dict[str, bytes]:
    return zoo.raw(uvmerge.restore(*pair, out, **{"top": 0.2} | options).out)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a checkpoint but what uvmerge adds about itself."""
    added = ("uvmerge.json", "README.md")
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in added}


def arrays(folder: Path) -> dict[str, Any]:
    return {name: np.asarray(tensor.double()) for name, tensor in zoo.tensors(folder).items()}


def is_layer_matrix(name: str) -> bool:
    return ".layers." in name and "_proj" in name


def as_bfloat16(W: Any) -> bytes:
    """The bytes of float64 values, each rounded once."""
    return bytes(torch.tensor(reference.nearest(W)).bfloat16().view(torch.uint8).numpy())


# --- nothing changes ---------------------------------------------------------------------------

NOTHING = {
    "restore --top 0": ("restore", {"top": 0}),
    "restore --rank 0": ("restore", {"rank": 0}),
    "restore --energy 0": ("restore", {"energy": 0}),
    "restore --tail 0": ("restore", {"tail": 0}),
    "restore --alpha 0": ("restore", {"alpha": 0}),
    "swap --alpha 0": ("swap", {"left": True, "alpha": 0}),
    "project --top 0": ("project", {"top": 0}),
    "project --alpha 0": ("project", {"alpha": 0}),
    "values --alpha 0": ("values", {"alpha": 0}),
    "interpolate --scale 1": ("interpolate", {"scale": 1}),
    "lines --start 1 --slope 0": ("lines", {"start": 1, "slope": 0}),
    "truncate --top 1": ("truncate", {"top": 1}),
    "truncate --top 0 --drop": ("truncate", {"top": 0, "drop": True}),
    "damp-intruders --damping 1": ("damp_intruders", {"damping": 1}),
    "damp-intruders --first 0": ("damp_intruders", {"first": 0}),
    "reset-layers --frac 0": ("reset_layers", {"frac": 0}),
}


@pytest.mark.parametrize("words", NOTHING)
def test_a_setting_that_changes_nothing_copies_bytes(
    words: str, sharded: Pair, tmp_path: Path
) -> None:
    name, options = NOTHING[words]
    result = getattr(uvmerge, name)(*sharded, tmp_path / "out", **options)
    assert contents(result.out) == contents(sharded[1])
    if words != "restore --energy 0":  # only the values can tell that it is zero
        assert not result.plan.needs_torch


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("restore", {}),
        ("restore", {"top": 0.5, "tail": 0.5, "values": "base"}),
        ("swap", {"left": True}),
        ("project", {"side": "right"}),
        ("values", {}),
        ("interpolate", {"scale": 0.3}),
        ("lines", {}),
        ("denoise", {}),
        ("truncate", {}),
        ("truncate", {"drop": True}),
        ("damp_intruders", {"threshold": 1.0}),
        ("reset_layers", {"frac": 1}),
    ],
)
def test_equal_checkpoints_come_out_as_they_are(
    name: str, options: dict[str, Any], sharded: Pair, tmp_path: Path
) -> None:
    twin = zoo.rewrite(sharded[1], tmp_path / "twin")
    result = getattr(uvmerge, name)(twin, sharded[1], tmp_path / "out", **options)
    assert contents(result.out) == contents(sharded[1])
    assert result.plan.counts()["copied"] < len(zoo.raw(twin))  # the plan did not know


def test_tensors_that_are_not_selected_are_copied(
    pair: Pair, restored: dict[str, bytes], tmp_path: Path
) -> None:
    finetuned = zoo.raw(pair[1])
    assert restored.keys() == finetuned.keys()
    changed = {name for name in restored if restored[name] != finetuned[name]}
    assert changed == {name for name in finetuned if is_layer_matrix(name)}

    one = restore(pair, tmp_path / "one", layers="1", include=["*q_proj*", "*norm*"])
    changed = {name for name in one if one[name] != finetuned[name]}
    assert changed == {"model.layers.1.self_attn.q_proj.weight"}


def test_interpolate_to_the_base_gives_its_bytes(pair: Pair, tmp_path: Path) -> None:
    result = uvmerge.interpolate(*pair, tmp_path / "out", scale=0)
    assert zoo.raw(result.out) == zoo.raw(pair[0]) != zoo.raw(pair[1])
    assert not result.plan.needs_torch


def test_restore_of_everything_gives_the_bytes_of_the_base(pair: Pair, tmp_path: Path) -> None:
    out = restore(pair, tmp_path / "out", top=1, values="base")
    base, finetuned = map(zoo.raw, pair)
    assert out == {n: (base if is_layer_matrix(n) else finetuned)[n] for n in finetuned}


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({"frac": 1}, {0, 1, 2, 3}),
        ({}, {0}),
        ({"frac": 0.26}, {0, 1}),
        ({"frac": 0.5, "from_": "last"}, {2, 3}),
        ({"layers": "1,3"}, {1, 3}),
    ],
)
def test_reset_layers_gives_the_bytes_of_the_base(
    options: dict[str, Any], layers: set[int], pair: Pair, tmp_path: Path
) -> None:
    base, finetuned = map(zoo.raw, pair)
    inside = tuple(f"model.layers.{layer}." for layer in layers)
    for only, ending in ((False, ""), (True, "_proj.weight")):
        folder = tmp_path / f"{only}"
        result = uvmerge.reset_layers(*pair, folder, matrices_only=only, **options)
        assert zoo.raw(result.out) == {
            name: (base if name.startswith(inside) and name.endswith(ending) else finetuned)[name]
            for name in finetuned
        }


def test_reset_layers_also_gives_the_rest_of_the_base(pair: Pair, tmp_path: Path) -> None:
    also = "embeddings,head,final-norm"
    result = uvmerge.reset_layers(*pair, tmp_path / "out", frac=1, also=also)
    assert zoo.raw(result.out) == zoo.raw(pair[0])


def test_lines_grows_evenly_from_the_base_to_the_finetuned(pair: Pair, tmp_path: Path) -> None:
    out = zoo.raw(uvmerge.lines(*pair, tmp_path / "out").out)
    half = zoo.raw(uvmerge.lines(*pair, tmp_path / "half", start=0.1, slope=0.5).out)
    base, finetuned = map(arrays, pair)
    for name in out:
        inside = name.startswith("model.layers.")
        W_b, W_f, layer = base[name], finetuned[name], int(name.split(".")[2]) if inside else 3
        assert out[name] == as_bfloat16(reference.lines(W_b, W_f, layer, 4, 0, 1)), name
        if inside:
            assert half[name] == as_bfloat16(reference.lines(W_b, W_f, layer, 4, 0.1, 0.5)), name
    assert half["lm_head.weight"] == zoo.raw(pair[1])["lm_head.weight"]


# --- circumstances that must not matter --------------------------------------------------------


def test_shards_do_not_matter(
    pair: Pair, sharded: Pair, restored: dict[str, bytes], tmp_path: Path
) -> None:
    for i, both in enumerate([sharded, (pair[0], sharded[1]), (sharded[0], pair[1])]):
        assert restore(both, tmp_path / f"{i}") == restored
    assert restore(pair, tmp_path / "cut", max_shard_size=60_000) == restored
    assert len(zoo.files(tmp_path / "cut")) > 3
    assert restore(sharded, tmp_path / "joined", max_shard_size="1GB") == restored
    assert len(zoo.files(tmp_path / "joined")) == 1


def test_the_order_of_names_does_not_matter(
    pair: Pair, restored: dict[str, bytes], tmp_path: Path
) -> None:
    """Files written by hand, with their tensors backwards."""
    turned = []
    for folder in pair:
        entries, data = zoo.header(folder / zoo.SINGLE)
        metadata = entries.pop("__metadata__")
        specs = {
            name: (entries[name]["dtype"], entries[name]["shape"], data[slice(*offsets)])
            for name in reversed(entries)
            for offsets in [entries[name]["data_offsets"]]
        }
        copy = zoo.rewrite(folder, tmp_path / folder.name)
        zoo.write_safetensors(copy / zoo.SINGLE, specs, metadata)
        turned.append(copy)
    assert list(zoo.header(turned[1] / zoo.SINGLE)[0])[1:] == list(reversed(restored))
    assert restore((turned[0], turned[1]), tmp_path / "out") == restored


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_does_not_matter(
    workers: int, pair: Pair, restored: dict[str, bytes], tmp_path: Path
) -> None:
    assert restore(pair, tmp_path / "out", workers=workers) == restored


@pytest.mark.parametrize("memory_bytes", [1, 300_000, 10**12])
def test_the_memory_budget_does_not_matter(
    memory_bytes: int, pair: Pair, restored: dict[str, bytes], tmp_path: Path
) -> None:
    assert restore(pair, tmp_path / "out", workers=3, memory=memory_bytes) == restored


def test_a_stop_and_resume_does_not_matter(
    sharded: Pair, restored: dict[str, bytes], tmp_path: Path
) -> None:
    out, seen = tmp_path / "out", []
    for stop_after in (3, 7):
        control = Control()

        def advance(
            name: str, work: float, control: Control = control, n: int = stop_after
        ) -> None:
            seen.append(name)
            if len(seen) >= n:
                control.stop.set()

        control.advance = advance
        with pytest.raises(uvmerge.Interrupted):
            restore(sharded, out, workers=1, control=control)
        assert not out.exists()
    assert restore(sharded, out, workers=2) == restored
    undisturbed = uvmerge.restore(*sharded, tmp_path / "again" / "out", top=0.2).out
    assert contents(out) == contents(undisturbed)
    assert (out / "uvmerge.json").read_bytes() == (undisturbed / "uvmerge.json").read_bytes()


def test_callers_threads_do_not_matter_and_come_back(
    pair: Pair, restored: dict[str, bytes], tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert restore(pair, tmp_path / "out") == restored
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


THREADS = """
import sys, hashlib, torch, uvmerge
base, finetuned, out = sys.argv[1:]
for name, options in (("restore", {"top": 0.3}), ("restore", {"tail": 0.3}), ("denoise", {})):
    getattr(uvmerge, name)(base, finetuned, out, overwrite=True, workers=2, **options)
    print(hashlib.sha256(open(out + "/model.safetensors", "rb").read()).hexdigest())
W = torch.randn(256, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
print(torch.get_num_threads(), torch.linalg.eigh(W @ W.mT)[1].sum().item().hex())
"""


def test_threads_of_the_environment_do_not_matter(tmp_path: Path) -> None:
    """torch's own eigh gives other last bits with other numbers of threads; the output does not."""
    random, folders = np.random.default_rng(0), [tmp_path / "base", tmp_path / "finetuned"]
    W = reference.with_values(np.arange(1, 257) ** -0.7, 256, 300, random)
    for folder, delta in zip(folders, (0.0, 0.05)):
        stored = reference.perturbed(W, delta, random)  # float64 shows the last bits
        spec = ("F64", list(stored.shape), stored.tobytes())
        zoo.write_safetensors(folder / zoo.SINGLE, {Q_PROJ: spec})
        (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 1}))
    found = []
    for threads in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        command = [sys.executable, "-c", THREADS, *map(str, folders), str(tmp_path / "out")]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=300
        )
        found.append(done.stdout.splitlines())
    (*one, alone), (*two, threaded) = found
    assert one == two
    assert len(set(one)) == 3
    assert (alone.split()[0], threaded.split()[0]) == ("1", "2")
    if alone.split()[1] == threaded.split()[1]:
        pytest.skip("here torch's eigh does not depend on its threads: the test proves nothing")


# --- one rounding ------------------------------------------------------------------------------


def test_an_edit_is_float64_rounded_once(pair: Pair, restored: dict[str, bytes]) -> None:
    base, finetuned = map(arrays, pair)
    for name in (Q_PROJ, "model.layers.3.mlp.down_proj.weight"):
        k = round(0.2 * min(base[name].shape))
        assert restored[name] == as_bfloat16(reference.restore(base[name], finetuned[name], k))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wider_checkpoints_stay_as_wide(dtype: str, tmp_path: Path) -> None:
    pair = zoo.pair("llama", tmp_path, dtype=dtype)
    out = uvmerge.restore(*pair, tmp_path / "out", top=0.2).out
    base, finetuned, result = map(arrays, (*pair, out))
    expected = reference.restore(base[Q_PROJ], finetuned[Q_PROJ], 10)
    rounded = np.float64(expected.astype(dtype))
    np.testing.assert_allclose(result[Q_PROJ], rounded, rtol=0, atol=1e-13)
    assert str(zoo.tensors(out)[Q_PROJ].dtype) == f"torch.{dtype}"


def test_inputs_of_different_dtypes_are_computed_wide_and_stored_as_finetuned(
    tmp_path: Path,
) -> None:
    pair = zoo.pair("llama", tmp_path, dtype="float32")
    narrow = zoo.finetune(pair[1], tmp_path / "narrow", strength=0, dtype="bfloat16")
    base, finetuned = arrays(pair[0]), arrays(narrow)
    restored = zoo.raw(uvmerge.restore(pair[0], narrow, tmp_path / "restored", top=0.2).out)
    reset = zoo.raw(uvmerge.reset_layers(pair[0], narrow, tmp_path / "reset", frac=1).out)
    stored = zoo.raw(uvmerge.restore(*pair, tmp_path / "cast", top=0, dtype="bfloat16").out)
    wide = arrays(pair[1])
    for name in finetuned:
        inside = name.startswith("model.layers.")
        expected = as_bfloat16(base[name]) if inside else zoo.raw(narrow)[name]
        assert reset[name] == expected, name
        assert stored[name] == as_bfloat16(wide[name]), name
    assert restored[Q_PROJ] == as_bfloat16(reference.restore(base[Q_PROJ], finetuned[Q_PROJ], 10))


def test_fast_differs_from_exact_by_roundings(
    pair: Pair, restored: dict[str, bytes], tmp_path: Path
) -> None:
    fast = restore(pair, tmp_path / "out", precision="fast")
    for name in filter(is_layer_matrix, fast):
        one, other = (
            torch.frombuffer(bytearray(raw[name]), dtype=torch.bfloat16).double()
            for raw in (fast, restored)
        )
        assert (one != other).double().mean() < 0.01, name
        assert (one - other).norm() < 1e-3 * other.norm(), name


CHAIN = """
uvmerge: 1
steps:
  - restore: {top: 0.3}
  - project: {top: 0.25, side: right, alpha: 0.5}
  - interpolate: {scale: 0.75, layers: 0-1}
  - truncate: {top: 0.5, drop: true, include: "*.0.*"}
"""


def test_a_chain_is_composed_in_float64_and_rounded_once(pair: Pair, tmp_path: Path) -> None:
    out = zoo.raw(
        uvmerge.run(Recipe.parse(CHAIN), tmp_path / "out", base=pair[0], finetuned=pair[1]).out
    )
    base, finetuned = map(arrays, pair)
    differs = 0
    for layer in (0, 1, 2):
        for part in ("self_attn.q_proj", "mlp.down_proj"):
            name = f"model.layers.{layer}.{part}.weight"
            W_b, W = base[name], finetuned[name]
            r = min(W.shape)
            steps = [
                lambda W, W_b=W_b, r=r: reference.restore(W_b, W, math.floor(0.3 * r + 0.5)),
                lambda W, W_b=W_b, r=r: reference.project(W_b, W, math.floor(0.25 * r + 0.5), "right", 0.5),
                lambda W, W_b=W_b: reference.interpolate(W_b, W, 0.75),
                lambda W, W_b=W_b, r=r: reference.truncate(W_b, W, r // 2, drop=True),
            ][: {0: 4, 1: 3, 2: 2}[layer]]  # fmt: skip
            often = W
            for step in steps:
                W, often = step(W), step(often)
                rounded = torch.frombuffer(bytearray(as_bfloat16(often)), dtype=torch.bfloat16)
                often = np.asarray(rounded.double()).reshape(W.shape)
            assert out[name] == as_bfloat16(W), name
            differs += out[name] != as_bfloat16(often)
    assert differs == 6  # rounding after each step is something else


def test_float32_and_16_bit_outputs_are_roundings_of_one_result(pair: Pair, tmp_path: Path) -> None:
    folders = {}
    for dtype in ("float32", "float16", "bfloat16"):
        folders[dtype] = uvmerge.restore(*pair, tmp_path / dtype, top=0.2, dtype=dtype).out
    base, finetuned = map(arrays, pair)
    W = reference.restore(base[Q_PROJ], finetuned[Q_PROJ], round(0.2 * min(base[Q_PROJ].shape)))
    for dtype, folder in folders.items():
        tensor = zoo.tensors(folder)[Q_PROJ]
        assert str(tensor.dtype) == f"torch.{dtype}"
        expected = [nearest(value, tensor.dtype) for value in W.flatten().tolist()]
        assert tensor.double().flatten().tolist() == expected
        config = json.loads((folder / "config.json").read_text())
        assert config["dtype"] == dtype


FORMATS = {torch.bfloat16: (8, -126), torch.float16: (11, -14), torch.float32: (24, -126)}


def nearest(value: float, dtype: torch.dtype) -> float:
    """`value` rounded to nearest, ties to even, in exact rational arithmetic."""
    digits, smallest_exponent = FORMATS[dtype]
    if value == 0 or not math.isfinite(value):
        return value
    exponent = max(math.frexp(value)[1] - 1, smallest_exponent)
    quantum = Fraction(2) ** (exponent - digits + 1)
    rounded = round(Fraction(value) / quantum) * quantum  # Python rounds halves to even
    if abs(rounded) > Fraction(torch.finfo(dtype).max):
        return math.copysign(math.inf, value)
    return math.copysign(float(rounded), value)


def awkward(dtype: torch.dtype) -> Iterator[float]:
    """Values beside which a rounding goes wrong if it goes wrong anywhere."""
    info, digits = torch.finfo(dtype), FORMATS[dtype][0]
    least = info.tiny * 2.0 ** (1 - digits)  # the smallest subnormal
    random = np.random.default_rng(0)
    starts = [0.0, least, 2 * least, info.tiny - least, info.tiny, 1.0, 1 + info.eps, 2 - info.eps]
    starts += [info.max, *(info.max * 2.0 ** -np.arange(1, 24)), *abs(random.standard_normal(200))]
    for start in starts:
        low = nearest(start, dtype)
        above = torch.tensor(low, dtype=dtype)
        high = torch.nextafter(above, torch.tensor(torch.inf, dtype=dtype)).double().item()
        tie = (low + high) / 2 if math.isfinite(high) else info.max * (1 + info.eps / 4)
        yield from (low, tie, math.nextafter(tie, math.inf), math.nextafter(tie, 0))
        for tiny in (2.0**-26, 2.0**-30, 2.0**-40, 2.0**-51):  # float32 rounds these onto the tie
            yield from (tie * (1 + tiny), tie * (1 - tiny))
    yield from (5e-324, 1e-300, 1e-46, 7e-46, 1.4e-45, 1e-40, least / 2, least / 2 * 1.0000001)
    yield from (65519.999999, 65520.0, 65536.0, 3.39e38, 3.3961e38, 3.4028235e38, math.inf)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_is_to_nearest_even_exactly_once(dtype: torch.dtype) -> None:
    values = [sign * value for value in awkward(dtype) for sign in (1, -1)]
    expected = [nearest(value, dtype) for value in values]
    found = round_once(torch.tensor(values, dtype=torch.float64), dtype)
    assert found.dtype == dtype
    finite = np.isfinite(expected)
    assert np.array_equal(
        reference.nearest(np.array(values)[finite], str(dtype)[6:]), np.array(expected)[finite]
    )
    wrong = [t for t in zip(values, found.double().tolist(), expected) if t[1] != t[2]]
    assert not wrong
    assert [math.copysign(1, v) for v in found.double().tolist()] == [
        math.copysign(1, v) for v in values
    ]
    twice = torch.tensor(values, dtype=torch.float64).to(dtype).double().tolist()
    assert sum(a != b for a, b in zip(twice, expected)) > 100  # torch's own way is not that


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_beyond_float32_overflows_to_infinity(dtype: torch.dtype) -> None:
    values = [3.41e38, 1e39, 1e300, -3.41e38, -1e300]
    found = round_once(torch.tensor(values, dtype=torch.float64), dtype).tolist()
    assert found == [nearest(value, dtype) for value in values]


def test_rounding_of_a_transposed_matrix_is_that_of_its_elements() -> None:
    W = torch.randn(300, 200, dtype=torch.float64)
    for part in (W.mT, W[::2, 1::3], W[5:6]):
        expected = [nearest(v, torch.float16) for v in part.flatten().tolist()]
        assert round_once(part, torch.float16).flatten().double().tolist() == expected
    assert round_once(W.to(torch.float32), torch.float32).equal(W.to(torch.float32))


# --- what is said of it ------------------------------------------------------------------------


def energy_rank(W: Any, energy: float) -> int:
    squares = reference.svd(W)[1] ** 2
    return int((squares.cumsum() >= energy * squares.sum()).argmax()) + 1


@pytest.mark.parametrize(
    ("options", "k"),
    [
        ({"top": 0.2}, 10),
        ({"tail": 0.1}, 5),
        ({"top": 0.2, "tail": 0.1}, 10),
        ({"energy": 0.9}, None),
        ({"energy": 0.9, "tail": 0.1}, None),
    ],
)
def test_the_recorded_k_is_that_of_the_head(
    options: dict[str, Any], k: int | None, pair: Pair, tmp_path: Path
) -> None:
    result = uvmerge.restore(*pair, tmp_path / "out", include=Q_PROJ, **options)
    assert result.plan.as_data()["edits"][Q_PROJ]["k"] == [k]
    used = energy_rank(arrays(pair[0])[Q_PROJ], 0.9) if k is None else k
    assert result.edits[Q_PROJ]["k"] == [used]
    cuts = {43 if "tail" in options else used, *([used] if used != 5 else [])}
    assert result.edits[Q_PROJ]["gap"]["base"].keys() == set(map(str, cuts))


def test_the_recorded_k_of_each_step_is_its_own(pair: Pair, tmp_path: Path) -> None:
    steps = ["restore: {energy: 0.5}", "project: {energy: 0.9}", "project: {energy: 0.5}"]
    recipe = Recipe.parse("\n".join(["uvmerge: 1", "steps:", *(f"- {step}" for step in steps)]))
    result = uvmerge.run(recipe, tmp_path / "out", base=pair[0], finetuned=pair[1])
    W_b = arrays(pair[0])[Q_PROJ]
    assert result.edits[Q_PROJ]["k"] == [energy_rank(W_b, energy) for energy in (0.5, 0.9, 0.5)]


def test_the_recorded_change_is_that_of_the_stored_tensor(
    pair: Pair, restored: dict[str, bytes], tmp_path: Path
) -> None:
    result = uvmerge.restore(*pair, tmp_path / "out", top=0.2)
    finetuned, after = arrays(pair[1]), arrays(result.out)
    for name, entry in result.edits.items():
        change = np.linalg.norm(after[name] - finetuned[name]) / np.linalg.norm(finetuned[name])
        assert entry["relative_change"] == pytest.approx(change, rel=1e-3)
    record = json.loads((result.out / "uvmerge.json").read_text())
    assert record["edited"] == result.edits
