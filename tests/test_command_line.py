"""How commands are written: places by name, ranges, other words, `~`; help and completion."""

from __future__ import annotations

import json
import re
from pathlib import Path

import faults
import pytest
import torch
import zoo
from command import uv
from faults import done, failed

import uvmerge
from uvmerge.api.series import series
from uvmerge.cli.main import cli
from uvmerge.operations import get, operations
from uvmerge.operations.options import GROUPS

OUT = "model.safetensors"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> faults.Pair:
    return faults.pair(tmp_path_factory.mktemp("pair"), layers=3)


# --- places ------------------------------------------------------------------------------------


def test_checkpoints_and_output_may_be_named(pair: faults.Pair, tmp_path: Path) -> None:
    base, finetuned = pair[:2]
    ways = [
        [base, finetuned, "-o", tmp_path / "a"],
        ["--base", base, "--finetuned", finetuned, "--out", tmp_path / "b"],
        [finetuned, tmp_path / "c", "--base", base],
        ["--finetuned", finetuned, base, tmp_path / "d"],
    ]
    for way in ways:
        done(faults.uvmerge("reset-layers", *way, "-q"))
    found = [faults.contents(tmp_path / name) for name in "abcd"]
    assert all(each == found[0] for each in found)
    swept = ["sweep", "reset-layers", "--frac", "0,0.5", "-q", "--base", base]
    done(faults.uvmerge(*swept, finetuned, "-o", tmp_path / "swept"))
    assert (tmp_path / "swept" / "frac-0.5" / OUT).is_file()
    recipe = tmp_path / "r.yaml"
    recipe.write_text("uvmerge: 1\nsteps: [reset-layers]\n")
    named = ["--base", base, "--finetuned", finetuned, "-q"]
    done(faults.uvmerge("run", recipe, "-o", tmp_path / "run", *named))
    assert zoo.raw(tmp_path / "run") == zoo.raw(tmp_path / "a")
    failed(faults.uvmerge("run", recipe, tmp_path / "x", "-o", "y", *named), "given twice", code=2)


def test_paths_are_printed_as_they_were_typed(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "reset-layers", *pair[:2], "link/swept", "--frac", "0,0.5"]
    assert done(faults.uvmerge(*words)).out == "link/swept/frac-0\nlink/swept/frac-0.5\n"
    assert json.loads(faults.uvmerge(*words, "--json").out)["out"] == "link/swept"


def test_a_tilde_is_the_home_folder_in_python_and_in_quotes(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name, folder in zip(("base", "sft"), pair):
        (home / name).symlink_to(folder)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    made = uvmerge.reset_layers("~/base", "~/sft", "~/a", report="~/report")
    assert made.out == home / "a" and (home / "report" / "report.json").is_file()
    assert uvmerge.check("~/a", against="~/sft")["changed"] > 0
    done(faults.uvmerge("reset-layers", "~/base", "~/sft", "~/b", "--factors", "~/factors"))
    swept = uvmerge.sweep("reset-layers", "~/base", "~/sft", "~/swept", frac=[0, 0.5])
    assert swept.folder == home / "swept"
    uvmerge.diff("~/base", "~/sft").save("~/measured")
    (home / "r.yaml").write_text("uvmerge: 1\nbase: ~/base\nfinetuned: ~/sft\nsteps: [restore]\n")
    uvmerge.run("~/r.yaml", "~/run")
    with pytest.raises(uvmerge.UsageError, match="is the input"):
        uvmerge.reset_layers("~/base", "~/sft", pair[0])
    assert {"a", "b", "swept", "measured", "run"} < {path.name for path in home.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "text", "values"),
    [
        ("top", "0.1:0.5:0.1", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("top", "5%:20%:5%", [0.05, 0.1, 0.15, 0.2]),
        ("top", "0.1:0.4:0.2", [0.1, 0.3]),
        ("top", "0.5:0.1:-0.2, 1", [0.5, 0.3, 0.1, 1.0]),
        ("rank", "8:32:8", [8, 16, 24, 32]),
        ("rank", "3", [3]),
        ("values", "base,finetuned", ["base", "finetuned"]),
        ("left", "true,false", [True, False]),
    ],
)
def test_a_range_includes_its_end(option: str, text: str, values: list[object]) -> None:
    parameter = next(
        p for name in ("restore", "swap") for p in get(name).parameters if p.name == option
    )
    assert series(parameter, text) == values


def test_a_range_makes_the_checkpoints_of_its_values(pair: faults.Pair, tmp_path: Path) -> None:
    for name, text in (("a", "0:1:0.5"), ("b", "0,0.5,1")):
        words = ["sweep", "reset-layers", *pair[:2], tmp_path / name, "--frac", text, "-q"]
        done(faults.uvmerge(*words))
    assert faults.contents(tmp_path / "a") == faults.contents(tmp_path / "b")


@pytest.mark.parametrize(("word", "dtype"), [("bf16", "BF16"), ("fp16", "F16"), ("fp32", "F32")])
def test_short_words_are_dtypes(word: str, dtype: str, pair: faults.Pair, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    done(faults.uvmerge("reset-layers", *pair[:2], out, "--dtype", word))
    with uvmerge.Checkpoint.open(out) as checkpoint:
        assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {dtype}
    recipe = {"uvmerge": 1, "dtype": word, "steps": ["reset-layers"]}
    uvmerge.run(recipe, again, base=pair[0], finetuned=pair[1])
    assert faults.contents(out) == faults.contents(again)


def test_a_tail_is_a_count_as_well_as_a_share(pair: faults.Pair, tmp_path: Path) -> None:
    r = min(zoo.tensors(pair[0])[faults.Q.format(0)].shape)
    only = {"include": [f"*{faults.Q.format(0).partition('0.')[2]}"]}
    uvmerge.restore(*pair[:2], tmp_path / "share", tail=4 / r, **only)
    uvmerge.restore(*pair[:2], tmp_path / "count", tail_rank=4, **only)
    uvmerge.restore(*pair[:2], tmp_path / "head", rank=0, tail_rank=4, **only)
    found = [zoo.raw(tmp_path / name) for name in ("share", "count", "head")]
    assert found[0] == found[1] == found[2] != zoo.raw(pair[1])


def test_the_default_that_is_shown_is_the_one_that_works(pair: faults.Pair, tmp_path: Path) -> None:
    for operation in operations().values():
        for parameter in operation.parameters:
            shown = parameter.shown_default
            if parameter.default is None and re.fullmatch(r"[\d.]+", shown):
                more = {"left": True} if operation.name == "swap" else {}
                call = getattr(uvmerge, operation.name)
                out, again = tmp_path / operation.name, tmp_path / f"{operation.name}-again"
                call(*pair[:2], out, **more)
                call(*pair[:2], again, **more, **{parameter.name: float(shown)})
                assert zoo.raw(out) == zoo.raw(again)
    assert len(list(tmp_path.iterdir())) == 2 * 6


def test_earlier_names_of_options_are_read_in_recipes_and_manifests(
    pair: faults.Pair, tmp_path: Path
) -> None:
    old = {"uvmerge": 1, "steps": [{"lines": {"alpha": 0.5, "beta": 0.25}}]}
    new = {"uvmerge": 1, "steps": [{"lines": {"start": 0.5, "slope": 0.25}}]}
    assert uvmerge.Recipe.from_data(old) == uvmerge.Recipe.from_data(new)
    assert uvmerge.Recipe.from_data(old).as_data() == new
    uvmerge.lines(*pair[:2], tmp_path / "out", start=0.5, slope=0.5)
    base, finetuned, found = (zoo.tensors(f) for f in (*pair[:2], tmp_path / "out"))
    name = faults.Q.format(1)
    expected = base[name] + (0.5 + 0.5 / 2) * (finetuned[name] - base[name])
    assert torch.allclose(found[name], expected, atol=1e-6)


# --- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(operations()))
def test_every_option_is_named_in_the_formula_or_has_its_letter_there(name: str) -> None:
    doc = operations()[name].function.__doc__ or ""
    formula = doc[doc.index("Formula:") : doc.index("Cost:")]
    for parameter in operations()[name].parameters:
        letter = (parameter.option.metavar or "").partition("/")[0]  # of each model: w/w for w_i
        is_letter = len(letter) == 1 and re.search(rf"(?<!\w){letter}(_i)?(?!\w)", formula)
        assert is_letter or f"-{parameter.key}" in formula or parameter.option.parse or (
            any(choice in formula for choice in parameter.choices)
        ) or parameter.type is bool, parameter.key  # fmt: skip


def test_help_has_its_options_under_headings() -> None:
    text = done(faults.uvmerge("restore", "--help")).out
    headings = re.findall(r"^([A-Z][a-z ]+):$", text, re.MULTILINE)
    assert headings == ["Checkpoints", *GROUPS]
    assert re.search(r"BASE or --base REF +The checkpoint before fine-tuning: a folder", text)
    sections = dict(zip(headings, re.split(r"^[A-Z][a-z ]+:\n", text, flags=re.MULTILINE)[1:]))
    where = {"How much": "--top", "Where": "--layers", "Output": "--dtype", "Machine": "--device"}
    for heading, option in (where | {"Safety": "--force", "Messages": "--json"}).items():
        assert option in sections[heading]
    for name in ("diff", "run", "show", "check", "demo", "sweep"):
        assert "Options:" not in done(faults.uvmerge(name, "--help")).out.replace(
            "Options:\n  -h, --help", ""
        )


def test_help_groups_commands_and_names_the_baseline() -> None:
    text = done(faults.uvmerge("help")).out
    assert text == done(faults.uvmerge("--help")).out
    headings = re.findall(r"^([A-Z][a-z]+):$", text, re.MULTILINE)
    assert headings == ["Options", "Repair", "Prevent", "Measure", "Try", "Share", "Look"]
    assert "the baseline that a repair must beat" in text
    assert done(faults.uvmerge("help", "restore")).out == faults.uvmerge("restore", "--help").out
    swept = done(faults.uvmerge("help", "sweep", "restore")).out
    assert swept.startswith("Usage: uvmerge sweep restore")
    failed(faults.uvmerge("help", "restor"), "Did you mean 'restore'?", code=2)
    assert cli.headings.keys() == cli.commands.keys()


# --- completion --------------------------------------------------------------------------------


def completed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> list[str]:
    """What bash is offered for the last word, as `type,value`."""
    monkeypatch.setenv("_UVMERGE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["uvmerge", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    return uv(capsys).out.split()


def test_a_shell_completes_commands_options_folders_and_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offered(*words: str) -> list[str]:
        return completed(capsys, monkeypatch, *words)

    (tmp_path / "config.json").write_text('{"text_config": {"num_hidden_layers": 8}}')
    folder = str(tmp_path)
    assert offered("rest") == ["plain,restore"]
    assert offered("restore", "--tail") == ["plain,--tail", "plain,--tail-rank"]
    for words in (["restore", "ba"], ["restore", "b", "f", "-o", "ba"], ["show", "ba"],
                  ["sweep", "restore", "ba"], ["diff", "b", "ba"], ["check", "ba"]):  # fmt: skip
        assert offered(*words) == ["dir,ba"]
    assert offered("run", "re") == ["file,re"]
    assert offered("restore", "--modules", "mlp,at") == ["plain,mlp,attention"]
    assert offered("restore", "--dtype", "b") == ["plain,bfloat16", "plain,bf16"]
    layers = offered("restore", folder, "f", "o", "--layers", "0")
    assert layers == ["plain,0-1", "plain,0-7"]
    assert offered("restore", "nowhere", "--layers", "0") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_uvmerge(shell: str) -> None:
    script = done(faults.uvmerge("completion", shell)).out
    assert "_UVMERGE_COMPLETE" in script and f"{shell}_complete" in script
