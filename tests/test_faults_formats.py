"""Formats that other tools write, names from outside in the card, sizes beyond a disk, lost connections."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import faults
import pytest
import zoo
from command import process
from faults import done, failed, refused
from hub_server import Fault, serving
from test_faults_checkpoints import LINEAR, packed, sparse_pair

import uvmerge
from uvmerge.text import as_code

CODES = {
    "int8 of bitsandbytes": {
        f"{LINEAR}.weight": packed("I8", [16, 16]),
        f"{LINEAR}.SCB": packed("F32", [16], 32),
        f"{LINEAR}.weight_format": packed("U8", []),
    },
    "NVFP4 of modelopt": {
        f"{LINEAR}.weight": packed("U8", [16, 8]),
        f"{LINEAR}.weight_scale": packed("F8_E4M3", [16, 1]),
        f"{LINEAR}.weight_scale_2": packed("F32", [], 32),
        f"{LINEAR}.input_scale": packed("F32", [], 32),
    },
    "AWQ": {
        f"{LINEAR}.qweight": packed("I32", [16, 2], 32),
        f"{LINEAR}.qzeros": packed("I32", [1, 2], 32),
        f"{LINEAR}.scales": packed("F16", [1, 16], 16),
    },
}

RENAMED = ("AWQ", "base")  # codes under another name than the weights of the fine-tuned side


def quantised(folder: Path, method: str, side: str) -> faults.Pair:
    """A pair of which one side holds the codes and scales of a method in place of one matrix."""
    plain = faults.tensors()
    sides = {"base": plain, "finetuned": faults.tuned(plain)}
    specs = {n: {k: faults.spec(t) for k, t in ts.items()} for n, ts in sides.items()}
    of = {name: spec for name, spec in specs[side].items() if not name.startswith(LINEAR)}
    specs[side] = of | CODES[method]
    paths = [faults.write(folder / name, found) for name, found in specs.items()]
    return paths[0], paths[1], folder / "out"


@pytest.mark.parametrize(
    ("method", "side"), [(m, s) for m in CODES for s in ("base", "finetuned") if (m, s) != RENAMED]
)
def test_codes_of_a_selected_matrix_are_refused_on_either_side(
    method: str, side: str, tmp_path: Path
) -> None:
    pair = quantised(tmp_path, method, side)
    refused(pair, f"({side}): is quantised (method unknown) in 1 selected tensor: {LINEAR}.")


def test_codes_under_another_name_are_no_counterpart(tmp_path: Path) -> None:
    """Of one matrix that is a note; of a whole base nothing is left to edit with."""
    pair = quantised(tmp_path / "one", *RENAMED)
    done(
        faults.restore(*pair),
        f"only in fine-tuned, copied: 1 tensor: {LINEAR}.weight",
        f"only in base, ignored: 3 tensors: {LINEAR}.qweight",
    )
    plain = faults.tensors()
    codes = {n.removesuffix("weight") + "qweight": packed("I32", [16, 2], 32)
             for n in plain if "proj" in n}  # fmt: skip
    rest = {n: faults.spec(t) for n, t in plain.items() if "proj" not in n}
    base = faults.write(tmp_path / "base", rest | codes)
    finetuned = faults.write(tmp_path / "finetuned", faults.tuned(plain))
    failed(faults.restore(base, finetuned, tmp_path / "out"), "error: ", code=3)


@pytest.mark.parametrize("method", CODES)
def test_codes_of_a_matrix_that_is_not_selected_are_copied_and_said(
    method: str, tmp_path: Path
) -> None:
    pair = quantised(tmp_path, method, "finetuned")
    outcome = done(faults.restore(*pair, "--layers", "1-2"), "note: not floating point, copied:")
    assert LINEAR in outcome.err
    before, after = zoo.raw(pair[1]), zoo.raw(pair[2])
    assert {name for name in before if after[name] != before[name]} == {
        of.format(i) for i in (1, 2) for of in (faults.Q, faults.DOWN)
    }


def test_an_adapter_beside_weights_is_said_and_left_behind(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    (pair[1] / "adapter_config.json").write_text("{}")
    (pair[1] / "adapter_model.safetensors").write_bytes(b"no weights of this model")
    done(
        faults.restore(*pair),
        "left behind: adapter_config.json, adapter_model.safetensors (an adapter lies beside the"
        " weights",
    )
    assert not list(pair[2].glob("adapter*"))


# --- the card ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("sft", "`sft`"),
        ("a`<b>`c", "`` a`<b>`c ``"),
        ("``", "``` `` ```"),
        ("\x1b[2J\n# x", "`\\x1b[2J\\n# x`"),
    ],
)
def test_no_name_gets_out_of_its_span_of_code(text: str, code: str) -> None:
    assert as_code(text) == code


def test_the_names_of_models_are_code_in_the_card(tmp_path: Path) -> None:
    evil = "x`<img src=q onerror=a()>\x1b[2J\n---\nlicense: evil"
    base, finetuned, out = faults.pair(tmp_path)
    base, finetuned = (path.rename(tmp_path / f"{path.name}{evil}") for path in (base, finetuned))
    done(faults.restore(base, finetuned, out))
    card = (out / "README.md").read_text()
    assert card.count("\n---\n") == 1 and "\nlicense:" not in card and "\x1b" not in card
    prose = card.split("\n---\n")[1]
    assert "<img" in prose and "<img" not in re.sub(
        r"(?ms)^```.*?^```$|(`+)[^`].*?[^`]\1(?!`)", "", prose
    )


# --- sizes -------------------------------------------------------------------------------------


def test_a_trillion_parameters_are_planned_at_once(tmp_path: Path) -> None:
    """2 TB a side, in files that take no room."""
    layers = 1000
    shapes = {faults.Q.format(i): [32768, 32768] for i in range(layers)}
    config = faults.CONFIG | {"num_hidden_layers": layers}
    pair = sparse_pair(tmp_path, shapes, config)
    started = time.process_time()
    outcome = done(faults.uvmerge("reset-layers", *pair, "--frac", "0.5", "--dry-run", "--json"))
    found = json.loads(outcome.out)
    assert found["counts"] == {"edited": 0, "reset": 500, "copied": 500}
    assert time.process_time() - started < 5
    assert (pair[1] / zoo.SINGLE).stat().st_size > 2 * 10**12
    refused_disk = faults.uvmerge("reset-layers", *pair, "--frac", "0.5")
    failed(refused_disk, "the output needs 2.147 TB", "bytes short", code=3)


# --- the connection ----------------------------------------------------------------------------


@pytest.mark.hub
def test_a_connection_that_is_lost_half_way_is_a_sentence_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server closes the connection in the midst of the weights, as often as it is asked."""
    whole = faults.tensors(hidden=64)
    base, finetuned, _ = faults.pair_of(tmp_path, whole)
    with serving({"org/base": base}) as hub:
        hub.faults = [Fault("GET /cdn", 99, drop_after=1000)]
        environment = {
            "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip
        words = ("restore", "org/base", finetuned, tmp_path / "out", "-q")
        outcome = process(*words, environment=environment)
        assert outcome.code == 3 and "Traceback" not in outcome.err, outcome.err
        assert len(outcome.err.strip().splitlines()) == 2 and "org/base" in outcome.err
        assert not (tmp_path / "out").exists()
        hub.faults = []
        assert process(*words, environment=environment).code == 0
    expected = uvmerge.restore(base, finetuned, tmp_path / "local").out
    assert zoo.raw(tmp_path / "out") == zoo.raw(expected)


def test_an_operation_that_returns_another_shape_names_the_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uvmerge.spectral.matrix import DenseMatrix

    real = DenseMatrix.plus
    monkeypatch.setattr(
        DenseMatrix, "plus", lambda self, *terms: self.with_values(real(self, *terms).tensor[:-1])
    )
    pair = faults.pair(tmp_path)
    outcome = faults.restore(*pair)
    failed(outcome, "model.layers.", "restore returned shape [15, ", code=1)
    assert not pair[2].exists()
