"""How an output says to go on: next commands, the model card, the manifest as a recipe."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import faults
import pytest
import yaml
from evaluations import write_run
from faults import done, failed

import uvmerge
from uvmerge.output.commands import after_sweep


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    return faults.pair(tmp_path)


def metadata(out: Path) -> dict[str, Any]:
    """The metadata of a model card."""
    return yaml.safe_load((out / "README.md").read_text().split("---\n")[1])


# --- the next commands -------------------------------------------------------------------------


def test_an_edit_ends_with_commands_that_work(pair: faults.Pair) -> None:
    base, finetuned, out = pair
    outcome = done(faults.restore(base, finetuned, out))
    lines = outcome.err.partition("\nnext:\n")[2].splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("    ")]
    assert [words[:2] for words in commands] == [
        ["uvmerge", "check"], ["uvmerge", "diff"], ["lm_eval", "run"], ["uvmerge", "sweep"]
    ]  # fmt: skip
    check, diff, evaluation, baseline = commands
    done(faults.uvmerge(*(word for word in check[1:] if word != "--load")))
    done(faults.uvmerge(*diff[1:]))
    done(faults.uvmerge(*baseline[1:]))
    assert f"pretrained={out}" in evaluation
    assert "on the tasks that matter, like these (needs uvmerge[eval]):" in outcome.err
    assert (out.with_name("out-interpolated") / "scale-0.5" / "uvmerge.json").exists()
    assert "next:" not in faults.restore(base, finetuned, out, "--quiet").err
    again = json.loads(done(faults.restore(base, finetuned, out, "--json")).out)
    assert [shlex.split(line) for line in again["next"]] == commands


def test_next_commands_fit_what_was_made(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path, config={"model_type": "bert"})
    found = uvmerge.interpolate(base, finetuned, out).next
    assert [command.words[1] for command in found] == ["check", "diff"]  # nothing to beat or ask


def test_a_sweep_ends_with_commands_that_work(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, finetuned, out = pair
    words = ("sweep", "restore", base, finetuned, out, "--top", "0.2,0.4")
    outcome = done(faults.uvmerge(*words))
    lines = outcome.err.partition("\nnext:\n")[2].splitlines()
    check, evaluation, compare, baseline = (
        shlex.split(line) for line in lines if line.startswith("    ")
    )
    assert lines[2] == (
        "  evaluate each, base and finetuned too, on the tasks that matter, like this"
        " (needs uvmerge[eval]):"
    )
    assert evaluation[:2] == ["lm_eval", "run"] and f"pretrained={out / 'top-0.2'}" in evaluation
    done(faults.uvmerge(*(word for word in check[1:] if word != "--load")))
    monkeypatch.chdir(tmp_path)
    place = evaluation[evaluation.index("--output_path") + 1]
    for name in ("base", "finetuned", "top-0.2", "top-0.4"):  # as the harness writes them
        write_run(Path(place).with_name(name) / "a__model", {"t": {"acc": [1, 0, 1]}})
    shown = done(faults.uvmerge(*compare[1:])).out
    assert "finetuned" in shown and "top-0.4" in shown
    done(faults.uvmerge(*baseline[1:]))
    assert (tmp_path / "out-interpolated" / "scale-0.5" / "uvmerge.json").exists()
    assert done(faults.uvmerge(*words)).err.partition("\nnext:\n")[2].splitlines() == lines
    assert "next:" not in faults.uvmerge(*words, "--dry-run").err
    assert "next:" not in faults.uvmerge(*words, "--quiet").err
    found = uvmerge.sweep("restore", base, finetuned, out, top=[0.2, 0.4])
    assert [each.line for each in found.next] == [line[4:] for line in lines if line[:4] == "    "]


def test_next_commands_of_a_sweep_fit_what_was_made(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path, config={"model_type": "bert"})
    found = uvmerge.sweep("interpolate", base, finetuned, out, scale=[0.1, 0.2]).next
    assert [command.words[1] for command in found] == ["check"]
    many = after_sweep(None, None, [f"out/{i}" for i in range(40)])
    assert [command.words[0] for command in many] == ["uvmerge", "lm_eval"]
    assert after_sweep(None, None, ["-o/a", "-o/b"])[0].words[2] == "./-o/a"


# --- the model card ----------------------------------------------------------------------------


def test_the_card_is_of_the_output(pair: faults.Pair) -> None:
    base, _, out = pair
    done(faults.uvmerge("restore", *pair))
    text = (out / "README.md").read_text()
    assert "\n# out\n" in text and "base_model" not in metadata(out)
    assert "top: 0.2\n    values: finetuned\n    alpha: 1.0" in text  # defaults too
    assert "| `model.layers.*.self_attn.q_proj.weight` | edit | 16 × 16 | 3 | 3 |" in text
    assert "uvmerge check out --load --against finetuned\n" in text
    assert "uvmerge run out/uvmerge.json out-again\n" in text
    assert "`finetuned` and `base` came from local folders" in text
    assert str(base.parent) not in text


def test_ids_are_those_that_are_known(pair: faults.Pair) -> None:
    out = pair[2]
    done(faults.restore(*pair, "--base-id", "org/base"))
    assert metadata(out)["base_model"] == ["org/base"]
    assert metadata(out)["base_model_relation"] == "finetune"
    both = ("--base-id", "org/base", "--finetuned-id", "me/sft")
    failed(faults.restore(*pair, *both), "is not empty", code=3)
    done(faults.restore(*pair, *both, "--overwrite"))
    assert metadata(out)["base_model"] == ["me/sft", "org/base"]
    assert metadata(out)["base_model_relation"] == "merge"
    text = (out / "README.md").read_text()
    assert "local folder" not in text and "--against me/sft\n" in text
    for wrong in ("base", "a/b/c", "a b/c", "../x"):
        failed(faults.restore(*pair, "--base-id", wrong), "is no Hub id", code=2)


FRONT = """license: other
license_name: some-research
license_link: https://example.com/LICENSE
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- feature-extraction
- merge
- lora
- base_model:someone/else
- dataset:someone/data
- 4-bit
base_model: someone/else
datasets: [someone/data]
model-index: [{name: x}]
"""


def test_what_holds_of_the_output_is_taken_over_and_nothing_else(pair: faults.Pair) -> None:
    (pair[1] / "README.md").write_text(f"---\n{FRONT}---\n# someone/else\n")
    done(faults.restore(*pair))
    assert metadata(pair[2]) == {
        "library_name": "sentence-transformers",
        "tags": ["uvmerge", "merge", "uvmerge-restore", "feature-extraction"],
        "pipeline_tag": "sentence-similarity",
        "license_name": "some-research",
        "license_link": "https://example.com/LICENSE",
        "license": "other",
    }
    assert "someone" not in (pair[2] / "README.md").read_text()


def test_the_library_is_that_of_the_files(pair: faults.Pair, tmp_path: Path) -> None:
    (pair[1] / "README.md").write_text("---\nlibrary_name: peft\nlicense_name: x\n---\n")
    done(faults.restore(*pair))
    assert metadata(pair[2])["library_name"] == "transformers"
    assert "license_name" not in metadata(pair[2])
    (pair[1] / "modules.json").write_text("[]")
    done(faults.restore(*pair[:2], tmp_path / "other"))
    assert metadata(tmp_path / "other")["library_name"] == "sentence-transformers"


# --- the manifest as a recipe ------------------------------------------------------------------


def test_a_manifest_is_a_recipe(pair: faults.Pair, tmp_path: Path) -> None:
    base, finetuned, out = pair
    done(faults.restore(*pair, "--layers", "0,2", "--dtype", "bfloat16"))
    run = ("run", out / "uvmerge.json", tmp_path / "again")
    do = "Name them: --base PATH --finetuned PATH."
    failed(faults.uvmerge(*run), "base was the folder 'base'", do, code=3)
    lacking = "finetuned was the folder 'finetuned', whose path"
    failed(faults.uvmerge(*run, "--base", base), lacking, "Name it: --finetuned PATH.", code=3)
    done(faults.uvmerge(*run, "--base", base, "--finetuned", finetuned))
    done(faults.uvmerge(*run[:2], base, finetuned, tmp_path / "third"))
    folders = (out, tmp_path / "again", tmp_path / "third")
    weights = {(folder / "model.safetensors").read_bytes() for folder in folders}
    assert len(weights) == 1


def test_a_manifest_that_was_changed_is_no_recipe(pair: faults.Pair, tmp_path: Path) -> None:
    done(faults.restore(*pair))
    path = pair[2] / "uvmerge.json"
    path.write_text(path.read_text().replace('"top": 0.25', '"top": 0.5'))
    again = ("run", path, tmp_path / "again", "--base", pair[0], "--finetuned", pair[1])
    failed(faults.uvmerge(*again), "was changed after uvmerge wrote it", code=3)


# --- check against the base by mistake ---------------------------------------------------------


def test_check_against_the_base_says_that_it_is_the_base(pair: faults.Pair, tmp_path: Path) -> None:
    base, finetuned, out = pair
    done(faults.restore(*pair))
    shutil.copytree(base, tmp_path / "copy")
    for mistaken in (base, tmp_path / "copy"):
        outcome = faults.uvmerge("check", out, "--against", mistaken)
        failed(outcome, "is the base of this output --against wants FINETUNED", code=2)
    done(faults.uvmerge("check", out, "--against", finetuned))
    done(faults.restore(base, base, tmp_path / "same"))
    done(faults.uvmerge("check", tmp_path / "same", "--against", base))
