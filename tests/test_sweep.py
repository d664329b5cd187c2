"""Sweeps: every checkpoint is the single command's, to the byte, from one decomposition per matrix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import pytest
import torch
import zoo
from faults import done, failed

import uvmerge
from uvmerge.api.sweep import MOST_SETTINGS, Sweep, grid, sweep
from uvmerge.engine.compute import Editor
from uvmerge.engine.settings import Control
from uvmerge.operations import get
from uvmerge.spectral import reduction

Words = Sequence[object]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> faults.Pair:
    """Two layers, in two files, with a tokenizer beside."""
    made = faults.pair(tmp_path_factory.mktemp("pair"), layers=2, hidden=32, shards=2)
    for folder in made[:2]:
        (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "swept"


def swept(pair: faults.Pair, out: Path, operation: str, *words: object) -> faults.Outcome:
    return faults.uvmerge("sweep", operation, *pair[:2], out, *words, "--quiet")


def single(pair: faults.Pair, folder: Path, operation: str, *words: object) -> dict[str, bytes]:
    """Every file that the single command writes."""
    done(faults.uvmerge(operation, *pair[:2], folder, *words, "--quiet"))
    found = faults.contents(folder)
    shutil.rmtree(folder)
    return found


def checkpoints(out: Path) -> dict[str, dict[str, bytes]]:
    """Every file of every setting."""
    return {path.name: faults.contents(path) for path in sorted(out.iterdir()) if path.is_dir()}


# --- to the byte -------------------------------------------------------------------------------

# operation and the words of a sweep → by folder, the words of the single command
SWEEPS: dict[str, tuple[str, Words, dict[str, Words]]] = {
    "tops": (
        "restore", ["--top", "0,0.05,0.1,0.5,1"],
        {f"top-{p}": ["--top", p] for p in ("0", "0.05", "0.1", "0.5", "1")},
    ),
    "tops of the whole triplets": (
        "restore", ["--top", "0.2,1", "--values", "base"],
        {f"top-{p}": ["--top", p, "--values", "base"] for p in ("0.2", "1")},
    ),
    "both ends": (
        "restore", ["--tail", "0.1,0.2", "--top", "0.3,0.5"],
        {
            f"tail-{q}_top-{p}": ["--top", p, "--tail", q]
            for q in ("0.1", "0.2") for p in ("0.3", "0.5")
        },
    ),
    "layers": (
        "restore", ["--layers", "0", "--layers", "0-1", "--top", "20%"],
        {f"layers-{which}": ["--layers", which, "--top", "0.2"] for which in ("0", "0-1")},
    ),
    "strengths": (
        "restore", ["--alpha", "0,0.5,1", "--rank", "7"],
        {f"alpha-{a}": ["--alpha", a, "--rank", "7"] for a in ("0", "0.5", "1")},
    ),
    "choices": (
        "restore", ["--values", "base,finetuned"],
        {f"values-{v}": ["--values", v] for v in ("base", "finetuned")},
    ),
    "energies": (
        "restore", ["--energy", "0,0.3,90%"],
        {f"energy-{e}": ["--energy", e] for e in ("0", "0.3", "0.9")},
    ),
    "interpolations": (
        "interpolate", ["--scale", "-0.5,0,0.3,1"],
        {f"scale-{a}": ["--scale", a] for a in ("-0.5", "0", "0.3", "1")},
    ),
    "truncations": (
        "truncate", ["--top", "0,0.1,0.5,1", "--drop", "true,false"],
        {
            f"top-{p}_drop-{d}": ["--top", p, *(["--drop"] if d == "true" else [])]
            for p in ("0", "0.1", "0.5", "1") for d in ("true", "false")
        },
    ),
    "projections": (
        "project", ["--rank", "3,9", "--side", "two,left,right"],
        {
            f"rank-{k}_side-{s}": ["--rank", k, "--side", s]
            for k in ("3", "9") for s in ("two", "left", "right")
        },
    ),
    "swaps": (
        "swap", ["--left", "--top", "0.1,0.3"],
        {f"top-{p}": ["--left", "--top", p] for p in ("0.1", "0.3")},
    ),
    "damped intruders": (
        "damp-intruders", ["--threshold", "0.9,1"],
        {f"threshold-{t}": ["--threshold", t] for t in ("0.9", "1")},
    ),
    "resets": (
        "reset-layers", ["--frac", "0,0.5,1", "--from", "first,last"],
        {
            f"frac-{f}_from-{end}": ["--frac", f, "--from", end]
            for f in ("0", "0.5", "1") for end in ("first", "last")
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("what", SWEEPS)
def test_each_checkpoint_is_that_of_the_single_command(
    what: str, precision: str, pair: faults.Pair, out: Path
) -> None:
    operation, words, singles = SWEEPS[what]
    precise = ("--precision", precision)
    outcome = done(swept(pair, out, operation, *words, *precise))
    found = checkpoints(out)
    assert found.keys() == singles.keys()
    assert [Path(line).name for line in outcome.out.splitlines()] == list(singles)
    for name, own in singles.items():
        expected = single(pair, out.with_name("single"), operation, *own, *precise)
        assert {"uvmerge.json", "README.md", "tokenizer.json", zoo.INDEX} <= expected.keys()
        assert found[name] == expected, name
    assert set(faults.contents(out)) == {
        "sweep.json", *(f"{name}/{file}" for name, files in found.items() for file in files)
    }  # fmt: skip


@pytest.mark.parametrize("order", [("tail", "top"), ("top", "tail")])
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_settings_that_share_terms_do_not_mix(
    precision: str, order: tuple[str, str], tmp_path: Path
) -> None:
    """Their sums have 64 columns in common, and some of them more."""
    pair, out = faults.pair(tmp_path, layers=1, hidden=300), tmp_path / "swept"
    values = {"top": [0.35, 0.4], "tail": [0.05, 0.1]}
    options = {"precision": precision, "workers": 1}
    sweep("restore", *pair[:2], out, **{key: values[key] for key in order}, **options)
    found = checkpoints(out)
    for top in values["top"]:
        for tail in values["tail"]:
            uvmerge.restore(*pair[:2], tmp_path / "single", top=top, tail=tail, **options)
            words = {"top": top, "tail": tail}
            name = "_".join(f"{key}-{words[key]:g}" for key in order)
            assert found[name] == faults.contents(tmp_path / "single"), name
            shutil.rmtree(tmp_path / "single")


@pytest.mark.parametrize("hidden", [40, 260])
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_each_matrix_is_decomposed_once(precision: str, hidden: int, tmp_path: Path) -> None:
    pair, out = faults.pair(tmp_path, layers=1, hidden=hidden), tmp_path / "swept"
    solved: list[int] = []

    def counted(real: Any) -> Any:
        return lambda A: solved.append(len(A)) or real(A)

    with (
        mock.patch.object(torch.linalg, "eigh", counted(torch.linalg.eigh)),
        mock.patch.object(reduction, "tridiagonal_form", counted(reduction.tridiagonal_form)),
    ):
        words = ("--top", "0.05,0.1,0.2,0.4", "--precision", precision, "--workers", 1)
        done(swept(pair, out, "restore", *words))
    assert [size for size in solved if size == hidden] == [hidden] * 4  # two matrices, two sides


def test_python_takes_lists_and_gives_what_the_command_line_does(
    pair: faults.Pair, out: Path
) -> None:
    result = uvmerge.sweep("restore", *pair[:2], out, top=[0.1, 0.2], layers=["0", "0-1"])
    assert isinstance(result, Sweep)
    names = ["top-0.1_layers-0", "top-0.1_layers-0-1", "top-0.2_layers-0", "top-0.2_layers-0-1"]
    assert [setting.name for setting in result.settings] == names == list(result.results)
    assert result.settings[1].varied == {"top": 0.1, "layers": "0-1"}
    for name, each in result.results.items():
        assert each.out == out / name == result.folder / name
        assert len(each.edits) == (2 if name.endswith("layers-0") else 4)
    words = ("--top", "0.1,0.2", "--layers", "0", "--layers", "0-1")
    done(swept(pair, out.with_name("other"), "restore", *words))
    assert faults.contents(out.with_name("other")) == faults.contents(out)


def test_the_function_is_no_module() -> None:
    """Importing a module sets its name in the package, over what the package says it is."""
    package = Path(uvmerge.__file__).parent
    assert [name for name in uvmerge.__all__ if (package / f"{name}.py").exists()] == []
    assert uvmerge.sweep is uvmerge.sweep is sweep


def test_the_order_of_the_options_is_not_recorded(pair: faults.Pair, out: Path) -> None:
    one = single(pair, out, "restore", "--top", "0.2", "--tail", "0.1", "--layers", "0")
    assert single(pair, out, "restore", "--layers", "0", "--tail", "0.1", "--top", "0.2") == one


def test_filters_are_the_same_for_all_settings(pair: faults.Pair, out: Path) -> None:
    words = ("--top", "0.1,0.2", "--include", "*q_proj*", "--modules", "attention,mlp")
    done(swept(pair, out, "restore", *words))
    result = uvmerge.sweep(
        "restore", *pair[:2], out.with_name("other"),
        top=[0.1, 0.2], include=["*q_proj*", "*k_proj*"], modules=["attention", "mlp"],
    )  # fmt: skip
    assert [s.name for s in result.settings] == ["top-0.1", "top-0.2"]
    edited = [json.loads(files["uvmerge.json"])["edited"] for files in checkpoints(out).values()]
    assert [len(entry) for entry in edited] == [2, 2]


def test_a_sweep_of_nan_notes_it_where_the_single_command_does(tmp_path: Path) -> None:
    base = faults.tensors(layers=2)
    finetuned = faults.tuned(base)
    finetuned[faults.Q.format(0)][0, 0] = float("nan")
    pair, out = faults.pair_of(tmp_path, base, finetuned), tmp_path / "swept"
    options = ("--nonfinite", "copy", "--top", "0.2")
    done(swept(pair, out, "restore", "--layers", "0", "--layers", "1", *options))
    for layer in ("0", "1"):
        expected = single(pair, tmp_path / "one", "restore", "--layers", layer, *options)
        assert checkpoints(out)[f"layers-{layer}"] == expected
    failed(swept(pair, tmp_path / "no", "restore", "--top", "0,0.2"), "NaN or Inf", code=3)
    assert not (tmp_path / "no").exists()


# --- names and records -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "options", "names"),
    [
        ("restore", {"top": [0.05, 0.4]}, ["top-0.05", "top-0.4"]),
        ("restore", {"top": [1e-05, 1 / 3]}, ["top-1e-05", "top-0.333333"]),
        ("restore", {"top": ["5%", 0.1]}, ["top-5%", "top-0.1"]),
        ("restore", {"rank": [1, 20]}, ["rank-1", "rank-20"]),
        ("restore", {"values": ["base", "finetuned"]}, ["values-base", "values-finetuned"]),
        ("restore", {"layers": ["0-9,12", (1, 2)]}, ["layers-0-9,12", "layers-1,2"]),
        ("restore", {"layers": [0, 3], "top": 0.1}, ["layers-0", "layers-3"]),
        ("lines", {"slope": [-1, 0.5]}, ["slope--1", "slope-0.5"]),
        ("lines", {"beta": [-1, 0.5]}, ["slope--1", "slope-0.5"]),
        ("restore", {"top": "0.1:0.4:0.1"}, ["top-0.1", "top-0.2", "top-0.3", "top-0.4"]),
        ("truncate", {"drop": [True, False]}, ["drop-true", "drop-false"]),
        ("reset-layers", {"from_": ["first", "last"]}, ["from-first", "from-last"]),
        (
            "restore", {"top": [0.1, 0.2], "alpha": [0.5, 1.0], "values": "base"},
            ["top-0.1_alpha-0.5", "top-0.1_alpha-1", "top-0.2_alpha-0.5", "top-0.2_alpha-1"],
        ),
    ],
)  # fmt: skip
def test_folders_are_named_by_what_varies(
    operation: str, options: dict[str, Any], names: list[str]
) -> None:
    assert [setting.name for setting in grid(get(operation), options)] == names


def test_sweep_json_says_which_is_which(pair: faults.Pair, out: Path) -> None:
    done(swept(pair, out, "restore", "--top", "0,0.2", "--alpha", "0.5,1"))
    text = (out / "sweep.json").read_text()
    record = json.loads(text)
    assert list(record) == ["format", "operation", "base", "finetuned", "checkpoints"]
    assert record["format"] == 1
    assert (record["operation"], record["base"], record["finetuned"]) == (
        "restore", "base", "finetuned",
    )  # fmt: skip
    assert list(record["checkpoints"]) == [
        "top-0_alpha-0.5", "top-0_alpha-1", "top-0.2_alpha-0.5", "top-0.2_alpha-1",
    ]  # fmt: skip
    for name, entry in record["checkpoints"].items():
        manifest = json.loads((out / name / "uvmerge.json").read_text())
        top, alpha = (float(word.partition("-")[2]) for word in name.split("_"))
        changes = sorted(e["relative_change"] for e in manifest["edited"].values())
        assert entry == {
            "settings": {"top": top, "alpha": alpha},
            "edited": len(changes) if top else 0,
            "reset": 0,
            "median_relative_change": changes[len(changes) // 2] if top else 0.0,
        }
        assert bool(top) == (entry["median_relative_change"] > 0.01)
    assert str(out.parent) not in text
    assert str(pair[0].parent) not in text
    again = out.with_name("again")
    done(swept(pair, again, "restore", "--top", "0,0.2", "--alpha", "0.5,1"))
    assert (again / "sweep.json").read_bytes() == (out / "sweep.json").read_bytes()


def test_sweep_json_counts_what_is_reset(pair: faults.Pair, out: Path) -> None:
    done(swept(pair, out, "reset-layers", "--frac", "0,0.5,1"))
    record = json.loads((out / "sweep.json").read_text())["checkpoints"]
    assert [entry["reset"] for entry in record.values()] == [0, 3, 6]


def test_json_has_every_setting_and_result(pair: faults.Pair, out: Path) -> None:
    outcome = done(swept(pair, out, "restore", "--top", "0.1,0.2", "--json"))
    data = json.loads(outcome.out)
    assert data.keys() == {"out", "settings", "results", "next"}
    assert data["out"] == str(out)
    assert data["settings"] == {"top-0.1": {"top": 0.1}, "top-0.2": {"top": 0.2}}
    for name, result in data["results"].items():
        assert result["out"] == str(out / name)
        assert result["edited"] == len(result["edits"]) == 4
    again = json.loads(done(swept(pair, out, "restore", "--top", "0.1,0.2", "--json")).out)
    assert again == data | {"results": {}}


def test_a_dry_run_prints_every_plan_and_writes_nothing(pair: faults.Pair, out: Path) -> None:
    before = faults.tree(out.parent)
    words = ("sweep", "restore", *pair[:2], out, "--top", "0,0.2", "--dry-run")
    outcome = done(faults.uvmerge(*words))
    for name, count in (("top-0", 0), ("top-0.2", 4)):
        assert f"setting {name}\nplan: {count} matrices edited" in outcome.out
        assert f"\n{name}\n" in outcome.out
    outcome = done(faults.uvmerge(*words, "--json"))
    data = json.loads(outcome.out)
    assert list(data["results"]) == ["top-0", "top-0.2"]
    assert data["results"]["top-0.2"]["counts"]["edited"] == 4
    assert faults.tree(out.parent) == before


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "words", "sentence"),
    [
        ("restore", ["--top", "0.1"], "one setting is no sweep"),
        ("restore", [], "one setting is no sweep"),
        ("restore", ["--top", "0.1,0.2,0.1"], "the setting top-0.1 is there twice"),
        ("restore", ["--top", "0.1,10%"], "the setting top-0.1 is there twice"),
        ("restore", ["--layers", "0", "--layers", "0"], "the setting layers-0 is there twice"),
        ("restore", ["--top", "0.1,0.2", "--rank", "3"], "cannot be given together"),
        ("restore", ["--rank", ",".join(map(str, range(MOST_SETTINGS + 1)))], "are too many"),
        ("restore", ["--top", "0.1,0.2", "--memory", "lots"], "memory: 'lots' is not a size"),
        ("swap", ["--top", "0.1,0.2"], "no side given"),
        ("swap", ["--left", "--top", "0.1,0.2", "--right", "false", "--rank", "2"], "together"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(
    operation: str, words: Words, sentence: str, pair: faults.Pair, out: Path
) -> None:
    failed(swept(pair, out, operation, *words), sentence, code=2)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--top", "0.1,2"], "error: --top: '2.0' is outside 0 to 1"),
        (["--top", "0.1,much"], "error: --top: 'much' is not a number"),
        (["--top", "0.1,"], "error: --top: '' is not a number"),
        (["--top"], "restore --top: requires an argument"),
        (["--tip", "0.1,0.2"], "restore --tip: is not an option Did you mean '--top'?"),
        (["--values", "base,mine"], "--values: 'mine' is not one of finetuned, base"),
        (["--layers", "0,x", "--layers", "1"], "error: --layers: '"),
        (["--precision", "exact,fast"], "--precision: 'exact,fast' is not one of exact, fast"),
    ],
)
def test_bad_options_of_a_sweep_are_usage_errors(
    words: Words, sentence: str, pair: faults.Pair, out: Path
) -> None:
    outcome = faults.uvmerge("sweep", "restore", *pair[:2], out, *words)
    assert outcome.code == 2
    assert sentence in outcome
    assert not out.exists()


def test_an_unknown_operation_or_option_is_refused_in_python_too(
    pair: faults.Pair, out: Path
) -> None:
    with pytest.raises(uvmerge.UsageError, match="restored"):
        uvmerge.sweep("restored", *pair[:2], out, top=[0.1, 0.2])
    with pytest.raises(uvmerge.UsageError, match="tip"):
        uvmerge.sweep("restore", *pair[:2], out, top=[0.1, 0.2], tip=1)
    with pytest.raises(uvmerge.UsageError, match="no sweep"):
        uvmerge.sweep("restore", *pair[:2], out, top=[])
    with pytest.raises(uvmerge.UsageError, match="not a layer"):
        uvmerge.sweep("restore", *pair[:2], out, layers=["0", "../1"])
    assert not out.exists()


def test_a_sweep_goes_into_a_folder(pair: faults.Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place, sentence in {
        tmp_path / "file": "is a file",
        tmp_path / "file" / "below": "is not a folder",
        tmp_path / "file" / "far" / "below": "is not a folder",
        "": "is empty",
    }.items():
        before = faults.tree(tmp_path)
        failed(swept(pair, place, "restore", "--top", "0.1,0.2"), sentence, code=2)  # type: ignore[arg-type]
        assert faults.tree(tmp_path) == before


def test_a_sweep_stays_out_of_its_inputs(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    (tmp_path / "link").symlink_to(pair[0])
    before = faults.tree(tmp_path)
    for place in (pair[0], pair[0] / "swept", pair[1] / "swept", tmp_path / "link" / "swept"):
        failed(swept(pair, place, "restore", "--top", "0.1,0.2"), "inside an input", code=2)
    assert faults.tree(tmp_path) == before


def test_a_refused_input_leaves_no_folder(pair: faults.Pair, out: Path) -> None:
    missing = out.with_name("missing")
    outcome = swept((missing, pair[1], out), out, "restore", "--top", "0.1,0.2")
    failed(outcome, "missing", code=3)
    assert not out.exists()
    outcome = swept(pair, out, "restore", "--layers", "0", "--layers", "7")
    failed(outcome, "not layer 7", code=3)
    assert not out.exists()


def test_a_sweep_may_go_beside_its_inputs(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, layers=1)
    done(swept(pair, tmp_path, "restore", "--top", "0.1,0.2"))
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"base", "finetuned", "top-0.1", "top-0.2", "sweep.json"}


# --- again, and after a stop -------------------------------------------------------------------

TOPS = ("--top", "0.05,0.1,0.2")


def edits_of(pair: faults.Pair, out: Path, *words: object) -> tuple[faults.Outcome, int]:
    """What a sweep did, and how many stretches it computed."""
    with mock.patch.object(Editor, "produce", autospec=True, side_effect=Editor.produce) as edit:
        return faults.uvmerge("sweep", "restore", *pair[:2], out, *words), edit.call_count


def test_settings_that_are_there_are_kept_and_not_computed_again(
    pair: faults.Pair, out: Path
) -> None:
    _, edits = edits_of(pair, out, *TOPS)
    assert edits == 4
    before = faults.tree(out)
    outcome, edits = edits_of(pair, out, *TOPS)
    done(outcome)
    assert edits == 0
    assert outcome.err.count("was there already") == 3
    assert [Path(line).name for line in outcome.out.splitlines()] == [
        "top-0.05", "top-0.1", "top-0.2",
    ]  # fmt: skip
    after = faults.tree(out)
    before.pop("sweep.json"), after.pop("sweep.json")
    assert after == before


@pytest.mark.parametrize("name", ["energies", "both ends", "resets", "damped intruders"])
def test_settings_of_every_kind_are_kept(name: str, pair: faults.Pair, out: Path) -> None:
    """Also those whose ranks values decide, or that have none."""
    operation, words, singles = SWEEPS[name]
    for count in (0, len(singles)):
        outcome = done(faults.uvmerge("sweep", operation, *pair[:2], out, *words))
        assert outcome.err.count("was there already") == count


def test_a_setting_with_a_tensor_of_nan_is_kept(tmp_path: Path) -> None:
    base = faults.tensors(layers=2)
    finetuned = faults.tuned(base)
    finetuned[faults.Q.format(0)][0, 0] = float("nan")
    pair, out = faults.pair_of(tmp_path, base, finetuned), tmp_path / "swept"
    words = ("--top", "0.1,0.2", "--layers", "0-1", "--nonfinite", "copy")
    assert edits_of(pair, out, *words)[1] == 3
    outcome, edits = edits_of(pair, out, *words)
    assert done(outcome).err.count("was there already") == 2 and edits == 0
    change_manifest(out / "top-0.1", lambda content: content["notes"].clear())
    assert edits_of(pair, out, *words)[0].code == 3  # a record is missing, and nothing says why


@pytest.mark.parametrize(
    "gone",
    ["model-00001-of-00002.safetensors", zoo.INDEX, "config.json", "tokenizer.json", "README.md",
     "uvmerge.json"],
)  # fmt: skip
def test_a_setting_that_lost_a_file_is_not_there(gone: str, pair: faults.Pair, out: Path) -> None:
    edits_of(pair, out, *TOPS)
    expected, record = faults.contents(out), (out / "sweep.json").stat()
    (out / "top-0.1" / gone).unlink()
    outcome, edits = edits_of(pair, out, *TOPS)
    failed(outcome, "top-0.1", code=3)
    assert edits == 0 and (out / "sweep.json").stat() == record
    shutil.rmtree(out / "top-0.1")
    done(edits_of(pair, out, *TOPS)[0])
    assert faults.contents(out) == expected


def change_manifest(folder: Path, change: Any) -> None:
    content = json.loads((folder / "uvmerge.json").read_text())
    change(content)
    (folder / "uvmerge.json").write_text(json.dumps(content))


Q0 = faults.Q.format(0)
FORGED: dict[str, Any] = {
    "another label": lambda c: c["edited"].update({"else": c["edited"].pop(Q0)}),
    "a record less": lambda c: c["edited"].pop(Q0),
    "a record more": lambda c: c["edited"].update({"else": c["edited"][Q0]}),
    "another rank": lambda c: c["edited"][Q0].update(k=[1]),
    "too many ranks": lambda c: c["edited"][Q0].update(k=[3, 3]),
    "no list of ranks": lambda c: c["edited"][Q0].update(k=3),
    "another step": lambda c: c["edited"][Q0].update(steps=[1]),
    "a word for a number": lambda c: c["edited"][Q0].update(relative_change="much"),
    "no number": lambda c: c["edited"][Q0].update(relative_change=float("nan")),
    "less than nothing": lambda c: c["edited"][Q0].update(relative_change=-1),
    "no change": lambda c: c["edited"][Q0].pop("relative_change"),
    "a list for a record": lambda c: c["edited"].update({Q0: []}),
    "a tensor reset": lambda c: c["reset"].append(Q0),
    "an object reset": lambda c: c["reset"].append({}),
    "no notes": lambda c: c.pop("notes"),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_manifest_that_does_not_fit_the_plan_is_not_believed(
    forged: str, pair: faults.Pair, out: Path
) -> None:
    edits_of(pair, out, *TOPS)
    record = (out / "sweep.json").stat()
    change_manifest(out / "top-0.1", FORGED[forged])
    outcome, edits = edits_of(pair, out, *TOPS)
    failed(outcome, "top-0.1", code=3)
    assert edits == 0 and (out / "sweep.json").stat() == record


def test_a_sweep_grows_by_the_settings_that_are_new(pair: faults.Pair, out: Path) -> None:
    edits_of(pair, out, *TOPS)
    before = checkpoints(out)
    outcome, edits = edits_of(pair, out, "--top", "0.1,0.4")
    done(outcome)
    assert edits == 4
    assert "top-0.1: was there already" in outcome
    assert checkpoints(out) == before | {
        "top-0.4": single(pair, out.with_name("one"), "restore", "--top", "0.4")
    }
    assert list(json.loads((out / "sweep.json").read_text())["checkpoints"]) == [
        "top-0.1", "top-0.4",
    ]  # fmt: skip


def test_what_the_single_command_wrote_is_a_setting_of_the_sweep(
    pair: faults.Pair, out: Path
) -> None:
    out.mkdir()
    done(faults.uvmerge("restore", *pair[:2], out / "top-0.1", "--top", "0.1", "--quiet"))
    outcome, _ = edits_of(pair, out, *TOPS)
    assert "top-0.1: was there already" in done(outcome)


@pytest.mark.parametrize("published", [0, 1, 2])
def test_a_sweep_that_stops_while_publishing_resumes(
    published: int, pair: faults.Pair, out: Path
) -> None:
    """The first settings are there, the others are staged and complete."""
    done(swept(pair, out.with_name("expected"), "restore", *TOPS))
    from uvmerge.output.writer import Advance, Staging

    real, count = Staging.publish, []

    def publish(self: Staging, advance: Advance) -> Path | None:
        if len(count) == published:
            raise OSError("pulled out")
        count.append(self)
        return real(self, advance)

    with mock.patch.object(Staging, "publish", publish), pytest.raises(uvmerge.RunFailed):
        uvmerge.sweep("restore", *pair[:2], out, top=[0.05, 0.1, 0.2])
    assert len(checkpoints(out)) == 3
    assert not (out / "sweep.json").exists()
    outcome, edits = edits_of(pair, out, *TOPS)
    done(outcome)
    assert edits == 0
    assert outcome.err.count("was there already") == published
    assert faults.contents(out) == faults.contents(out.with_name("expected"))


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_a_stopped_sweep_ends_with_the_same_bytes(
    precision: str, after: int, pair: faults.Pair, out: Path
) -> None:
    words = (*TOPS, "--precision", precision)
    done(swept(pair, out.with_name("expected"), "restore", *words))
    control, seen = Control(), []

    def advance(name: str, work: float) -> None:
        seen.append(name)
        if sum("_proj" in each for each in seen) >= after:
            control.stop.set()

    control.advance = advance
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.sweep(
            "restore", *pair[:2], out, top=[0.05, 0.1, 0.2], precision=precision, workers=1,
            control=control,
        )  # fmt: skip
    assert not any(path.name == "sweep.json" for path in out.iterdir())
    outcome, _ = edits_of(pair, out, *words)
    done(outcome)
    assert faults.contents(out) == faults.contents(out.with_name("expected"))


def test_a_resumed_sweep_computes_what_is_missing(pair: faults.Pair, out: Path) -> None:
    control = Control()

    def advance(name: str, work: float) -> None:
        if "_proj" in name:
            control.stop.set()

    control.advance = advance
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.sweep("restore", *pair[:2], out, top=[0.05, 0.1, 0.2], workers=1, control=control)
    _, edits = edits_of(pair, out, *TOPS)
    assert edits == 3


def test_a_killed_sweep_resumes(pair: faults.Pair, out: Path) -> None:
    done(swept(pair, out.with_name("expected"), "restore", *TOPS))
    log, words = out.with_name("log"), ("sweep", "restore", *pair[:2], out, *TOPS)
    process = faults.start(faults.slow_child, log, 0.2, *words, "--workers", "1")
    faults.wait_for(
        lambda: any(
            b"record" in path.read_bytes() for path in out.glob("*.uvmerge-partial-*/journal.jsonl")
        ),
        "the first edit",
    )
    process.kill()
    process.join()
    assert not (out / "sweep.json").exists()
    done(faults.uvmerge(*words))
    assert faults.contents(out) == faults.contents(out.with_name("expected"))


@pytest.mark.parametrize("what", ["other files", "another setting", "a changed file"])
def test_a_folder_that_holds_something_else_is_refused(
    what: str, pair: faults.Pair, out: Path
) -> None:
    done(swept(pair, out.with_name("expected"), "restore", *TOPS))
    place = out / "top-0.1"
    out.mkdir()
    if what == "other files":
        place.mkdir()
        (place / "notes.txt").write_text("mine")
    else:
        top = "0.3" if what == "another setting" else "0.1"
        done(faults.uvmerge("restore", *pair[:2], place, "--top", top, "--quiet"))
    if what == "a changed file":
        (place / "config.json").write_text("{}")
    before = faults.tree(out)
    missing = "not whole: config.json has other content"
    said = missing if what == "a changed file" else "top-0.1: is not empty"
    failed(swept(pair, out, "restore", *TOPS), said, "--overwrite", code=3)
    assert faults.tree(out) == before
    done(swept(pair, out, "restore", *TOPS, "--overwrite"))
    found, expected = checkpoints(out), checkpoints(out.with_name("expected"))
    aside = {name: files for name, files in found.items() if name not in expected}
    assert {name: found[name] for name in expected} == expected
    kept = {"another setting": []}.get(what, ["top-0.1.uvmerge-old-1"])
    assert list(aside) == kept  # what is all uvmerge's is replaced, the rest moved aside


def test_a_full_disk_stops_a_sweep_with_one_error_and_it_resumes(
    pair: faults.Pair, out: Path
) -> None:
    done(swept(pair, out.with_name("expected"), "restore", *TOPS))
    failures = 0
    for after in range(0, 1000, 7):
        with faults.full_disk(after=after):
            outcome = swept(pair, out, "restore", *TOPS)
        if outcome.code == 0:
            break
        failed(outcome, "the disk is full", code=1)
        failures += 1
    assert 4 < failures < 100
    assert faults.contents(out) == faults.contents(out.with_name("expected"))
