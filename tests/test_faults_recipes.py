"""Recipes from strangers: refused with their line, in words that help, and quickly."""

from __future__ import annotations

import time
from pathlib import Path

import faults
import pytest

STEP = "uvmerge: 1\nsteps:\n  - restore: {%s}\n"


def run(folder: Path, text: str | bytes) -> tuple[faults.Outcome, Path]:
    """`uvmerge run` of this recipe on a small pair; the file is called r.yaml."""
    base, finetuned, out = faults.pair(folder)
    recipe = folder / "r.yaml"
    recipe.write_bytes(text if isinstance(text, bytes) else text.encode())
    return faults.uvmerge("run", recipe, out, "--base", base, "--finetuned", finetuned), out


def refused(folder: Path, text: str | bytes, *sentences: str, code: int = 2) -> None:
    """The recipe is refused in these words within a second, briefly, and nothing is written."""
    started = time.process_time()
    outcome, out = run(folder, text)
    assert time.process_time() - started < 1
    faults.failed(outcome, *sentences, code=code)
    assert len(outcome.err) < 1000, outcome.err
    assert faults.leftovers(out) == []


def test_a_good_recipe_runs(tmp_path: Path) -> None:
    outcome, out = run(tmp_path, STEP % "top: 0.25")
    faults.done(outcome)
    assert (out / "model.safetensors").is_file()


def test_an_alias_bomb_is_refused_at_its_first_anchor(tmp_path: Path) -> None:
    bomb = "uvmerge: 1\nname: x\nb0: &b0 [x, x]\n"
    bomb += "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 30))
    refused(tmp_path, bomb, "error: r.yaml:3: anchors and aliases are not allowed")


def test_a_lone_alias_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "uvmerge: 1\nsteps: *x\n", "r.yaml:2: anchors and aliases are not allowed")


def test_a_merge_key_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, STEP % "<<: {top: 0.1}", "r.yaml:3: ")


@pytest.mark.parametrize(
    ("tagged", "tag"),
    [
        ("!!python/object/apply:os.mkdir [owned]",
         "tag:yaml.org,2002:python/object/apply:os.mkdir"),
        ("!!python/name:os.system x", "tag:yaml.org,2002:python/name:os.system"),
        ("!restore {top: 0.1}", "!restore"),
        ("!!binary aGk=", "tag:yaml.org,2002:binary"),
        ("!<tag:example.org,2000:x> 1", "tag:example.org,2000:x"),
    ],
)  # fmt: skip
def test_an_unsafe_tag_is_refused_and_has_no_effect(
    tagged: str, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"uvmerge: 1\nname: x\nsteps:\n  - {tagged}\n"
    refused(tmp_path, text, f"error: r.yaml:4: the tag {tag} is not allowed")
    assert not (tmp_path / "owned").exists()


def test_a_tag_behind_a_directive_is_refused(tmp_path: Path) -> None:
    text = "%TAG ! tag:yaml.org,2002:\n---\nuvmerge: 1\nname: !python/name:os.system x\n"
    refused(
        tmp_path, text, "r.yaml:4: the tag tag:yaml.org,2002:python/name:os.system is not allowed"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("uvmerge: 1\nname: a\nname: b\n", "r.yaml:3: the key 'name' stands here twice"),
        (STEP % "top: 0.1, top: 0.2", "r.yaml:3: the key 'top' stands here twice"),
        ("uvmerge: 1\nsteps:\n  - restore: {top: 0.1}\n    restore: {top: 0.2}\n",
         "r.yaml:4: the key 'restore' stands here twice"),
    ],
)  # fmt: skip
def test_a_duplicate_key_is_refused_with_its_line(text: str, sentence: str, tmp_path: Path) -> None:
    refused(tmp_path, text, f"error: {sentence}")


def test_one_option_in_two_spellings_is_refused(tmp_path: Path) -> None:
    body = "uvmerge: 1\nsteps:\n  - reset-layers:\n      matrices-only: true\n"
    body += "      matrices_only: false\n"
    refused(tmp_path, body, "error: r.yaml:", "matrices-only", "twice")


@pytest.mark.parametrize(
    ("text", "line", "what", "hint"),
    [
        ("uvmerge: 1\nstep: [restore]\n", 2, "unknown key 'step'", "Did you mean 'steps'?"),
        (STEP % "tob: 0.1", 3, "restore: tob: is not an option", "Did you mean 'top'?"),
        (STEP % "layer: 3", 3, "restore: layer: is not an option", "Did you mean 'layers'?"),
        ("uvmerge: 1\nsteps:\n  - restor: {top: 0.1}\n", 3, "restor: is not an operation",
         "Did you mean 'restore'?"),
        ("uvmerge: 1\nsteps:\n  - reset-layer\n", 3, "reset-layer: is not an operation",
         "Did you mean 'reset-layers'?"),
        ("uvmerge: 1\ndtype: bfloat\nsteps: [restore]\n", 2, "'bfloat' is unknown",
         "Did you mean 'bfloat16'?"),
        (STEP % "'a:b': 1", 3, "restore: a:b: is not an option", "Known: alpha, energy, exclude"),
        (STEP % "values: basis", 3, "--values: 'basis' is not one of finetuned, base", ""),
        (STEP % "modules: atention", 3, "'atention' is not a module", "Choose from attention, mlp"),
    ],
)  # fmt: skip
def test_an_unknown_word_is_refused_with_its_line_and_a_suggestion(
    text: str, line: int, what: str, hint: str, tmp_path: Path
) -> None:
    refused(tmp_path, text, f"error: r.yaml:{line}: ", what, hint)


def test_a_wrong_option_in_a_block_is_refused_with_its_own_line(tmp_path: Path) -> None:
    text = "uvmerge: 1\nsteps:\n  - restore:\n      top: 0.1\n      values: base\n      alpha: 2\n"
    refused(tmp_path, text, "error: r.yaml:6: --alpha: '2' is outside 0 to 1")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("top: 1.5", "--top: '1.5' is outside 0 to 1"),
        ("top: -0.1", "--top: '-0.1' is outside 0 to 1"),
        ("top: 120%", "--top: '120%' is outside 0 to 1"),
        ("top: 1e-3", "--top: '1e-3' is text, not a number Write it as 0.001."),
        ("top: '0.2'", "--top: '0.2' is text, not a number Write it as 0.2."),
        ("top: .nan", "--top: 'nan' is not a finite number"),
        ("top: .inf", "--top: 'inf' is not a finite number"),
        ("top: true", "--top: 'True' is not a number"),
        ("top: [0.1]", "--top: '[0.1]' is not a number"),
        ("top: {a: 1}", "is no gradient"),
        ("top: 2024-05-01", "--top: '2024-05-01' is not a number"),
        ("top: 2024-99-01", "'2024-99-01' cannot be read"),
        ("top: ", "has no value"),
        ("rank: 1.5", "--rank: '1.5' is not a whole number"),
        ("rank: -1", "--rank: '-1' is outside values of at least 0"),
        ("layers: 3-1", "'3-1' is not a range of layers Write it like 0-9,12."),
        ("layers: -1", "'-1' is not a layer or a range"),
        ("layers: 0-99999999", "'0-99999999' is not a range of layers"),
        ("layers: true", "True is not a list of layers"),
        ("include: 5", "5 is not a list of names"),
        ("include: [[a]]", "[['a']] is not a list of names"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_line(
    setting: str, sentence: str, tmp_path: Path
) -> None:
    text = STEP.replace("{%s}", f"\n      {setting}\n")
    refused(tmp_path, text, "error: r.yaml:4: ", sentence)


def test_two_options_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, STEP % "top: 0.1, rank: 3", "--top and --rank", "cannot be given together")


@pytest.mark.parametrize(
    "setting",
    [
        "top: !!bool x", "top: !!int ''", "top: !!float ''", "top: !!int '-'", "top: !!null x y",
        "rank: " + "9" * 400, "rank: " + "9" * 5000, "rank: 0b" + "1" * 20_000,
        "rank: 0x" + "f" * 5000, "top: 0x" + "f" * 5000, "top: 1" + ":1" * 100_000,
        "top: 1" + ":1" * 100_000 + ".5", "top: " + "9" * 200_000 + "%", "layers: " + "9" * 5000,
        "top: " + "1_" * 100_000, "include: !!seq abc", "include: !!str {a: b}",
    ],
    ids=lambda setting: setting[:20],
)  # fmt: skip
def test_a_number_that_is_none_is_refused_quickly(setting: str, tmp_path: Path) -> None:
    refused(tmp_path, STEP % setting, "error: r.yaml:3: ")


def test_an_enormous_rank_on_the_command_line_is_refused(tmp_path: Path) -> None:
    outcome = faults.uvmerge("restore", *faults.pair(tmp_path), "--rank", "9" * 400)
    assert outcome.code == 2
    assert "--rank" in outcome
    assert "Traceback" not in outcome.err


def test_a_recipe_of_256_kib_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    text = STEP % "top: 0.25"
    whole = text + "#" * (256 * 1024 - len(text))
    faults.done(run(tmp_path, whole)[0])
    refused(tmp_path / "more", whole + "#", "error: r.yaml: is larger than 256 KiB")


def test_an_enormous_recipe_is_not_read(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    recipe = tmp_path / "r.yaml"
    with recipe.open("wb") as file:
        file.truncate(10**12)
    outcome = faults.uvmerge("run", recipe, out, "--base", base, "--finetuned", finetuned)
    faults.failed(outcome, "r.yaml: is larger than 256 KiB", code=2)


@pytest.mark.parametrize("opening", ["[", "- ", "? ", "{a: ", "[{a: "])
def test_a_depth_over_32_is_refused(opening: str, tmp_path: Path) -> None:
    text = opening * (250_000 // len(opening))
    refused(tmp_path, text, "error: r.yaml:1: nested deeper than 32 levels")


@pytest.mark.parametrize(
    "text",
    [
        "uvmerge: 1\nsteps: [" + "a," * 125_000 + "]\n",
        "uvmerge: 1\nsteps:\n" + "- a\n" * 62_000,
        "uvmerge: 1\nsteps: [" + "[]," * 80_000 + "]\n",
        "uvmerge: 1\nsteps:\n- restore: {" + ",".join(f"k{i}" for i in range(36_000)) + "}\n",
        "uvmerge: 1\n? " + "a" * 250_000 + "\n: 1\n",
        "uvmerge: 1\nname: " + "a " * 125_000 + "\n",
        'uvmerge: 1\nname: "' + "\\n" * 125_000 + '"\n',
        "a" * 250_000 + ": 1\n",
        "#\n" * 125_000,
        "\n" * 250_000,
        STEP % ("? " + "a" * 250_000 + " : 1"),
    ],
    ids=["flow", "block", "empty", "keys", "long key", "words", "quoted", "key", "comments",
         "lines", "option"],
)  # fmt: skip
def test_256_kib_of_anything_are_refused_within_a_second(text: str, tmp_path: Path) -> None:
    refused(tmp_path, text, "error: r.yaml:")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "r.yaml:1: is empty Start with `uvmerge: 1`."),
        ("# nothing\n", "r.yaml:1: is empty Start with `uvmerge: 1`."),
        ("[]", "r.yaml:1: expected keys and values here Write `key: value`."),
        ("steps: [restore]\n", "r.yaml:1: the key 'uvmerge' is missing"),
        ("uvmerge: 1\n", "r.yaml:1: the key 'steps' is missing"),
        ("uvmerge: 2\nsteps: [restore]\n", "r.yaml:1: recipe format 2, this uvmerge reads 1"),
        ("uvmerge: true\nsteps: [restore]\n", "r.yaml:1: recipe format True"),
        ("uvmerge: 1\nsteps: []\n", "r.yaml:2: steps must be a list with at least one step"),
        ("uvmerge: 1\nsteps: restore\n", "r.yaml:2: steps must be a list with at least one step"),
        ("uvmerge: 1\nsteps: [null]\n", "r.yaml:2: null: is not an operation"),
        ("uvmerge: 1\nsteps: [{restore: , swap: }]\n", "r.yaml:2: a step is one operation"),
        ("uvmerge: 1\nsteps: [{restore: [top]}]\n", "r.yaml:2: expected keys and values here"),
        ("uvmerge: 1\n? [a]\n: 1\n", "r.yaml:2: a key must be a word"),
        ("uvmerge: 1\nname: 5\nsteps: [restore]\n", "r.yaml:2: name must be text, not 5"),
        ("uvmerge: 1\n---\nuvmerge: 1\n", "r.yaml:2: a second document begins here"),
        ("uvmerge: 1\n\tsteps: 1\n", "r.yaml:2: a tab stands where YAML wants spaces"),
        ("uvmerge: 1\nsteps: [restore\n\n", "r.yaml:2: the list that begins here with [ is not closed"),
        (b"uvmerge: 1\nname: \xff\n", "r.yaml:1: is not valid YAML: unacceptable character"),
        (b"uvmerge: 1\nname: \0\n", "r.yaml:1: is not valid YAML: unacceptable character"),
        (b"\x80\x02}q\x00.", "r.yaml:1: is not valid YAML: unacceptable character"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_with_its_line(
    text: str | bytes, sentence: str, tmp_path: Path
) -> None:
    refused(tmp_path, text, f"error: {sentence}")


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_recipe_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    recipe = base if kind == "folder" else tmp_path / "missing.yaml"
    outcome = faults.uvmerge("run", recipe, out, "--base", base, "--finetuned", finetuned)
    what = "is a folder" if kind == "folder" else "there is no such recipe file"
    faults.failed(outcome, f"{recipe}: {what}", code=2)


@pytest.mark.parametrize(
    "key", ["out", "output", "path", "staging", "env", "allow-pickle", "device"]
)
def test_a_recipe_cannot_say_where_to_write_or_how(key: str, tmp_path: Path) -> None:
    text = f"uvmerge: 1\n{key}: {tmp_path / 'elsewhere'}\nsteps: [restore]\n"
    refused(tmp_path, text, f"error: r.yaml:2: unknown key '{key}'", "Known: base, description, ")
    refused(tmp_path, STEP % f"{key}: x", f"r.yaml:3: restore: {key}: is not an option")
    assert not (tmp_path / "elsewhere").exists()


def test_environment_variables_are_not_interpolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    monkeypatch.setenv("SECRET", str(base))
    for word in ("$SECRET", "${SECRET}", "%SECRET%", "{{ env.SECRET }}", "!env SECRET"):
        recipe = tmp_path / "r.yaml"
        recipe.write_text(f"uvmerge: 1\nbase: '{word}'\nsteps: [restore]\n")
        outcome = faults.uvmerge("run", recipe, out, "--finetuned", finetuned)
        faults.failed(outcome, f"{word}: is neither a folder nor a Hub id", code=3)
        assert str(base) not in outcome.err


def test_names_are_globs_and_not_regular_expressions(tmp_path: Path) -> None:
    what = "selection: nothing selected: none of 12 tensors passes the filters"
    refused(tmp_path, STEP % "include: '.*'", what, code=3)
    refused(tmp_path, STEP % "include: '(model|x).+'", what, code=3)


@pytest.mark.parametrize(
    "glob",
    [
        "*a" * 30 + "b", "*a" * 50_000 + "b", "?*" * 100_000, "*" * 200_000, "[a" * 100_000,
        "[!" * 100_000, "[" * 200_000, "*[a-z]" * 40_000 + "!",
    ],
    ids=lambda glob: f"{glob[:6]} {len(glob)}",
)  # fmt: skip
def test_a_pathological_glob_does_not_hang(glob: str, tmp_path: Path) -> None:
    started = time.process_time()
    with faults.at_most(5):
        outcome, _ = run(tmp_path, STEP % f"include: '{glob}'")
    assert time.process_time() - started < 1
    assert outcome.code in (2, 3) if glob.strip("?*") else outcome.code in (0, 2), outcome
    assert len(outcome.err) < 1000


def test_thousands_of_globs_do_not_hang(tmp_path: Path) -> None:
    globs = ",".join(f"'*g{i}*'" for i in range(10_000))
    started = time.process_time()
    outcome, out = run(tmp_path, STEP % f"include: [{globs}]")
    assert time.process_time() - started < 1
    assert outcome.code in (2, 3), outcome
    assert faults.leftovers(out) == []


@pytest.mark.parametrize(
    "glob", ["[z-a]", "[[a]", "[!", "[]", "[a--b]", "[a&&b]", "[a||b]", "[]]", "\\"]
)
def test_a_glob_that_makes_no_sense_matches_nothing(glob: str, tmp_path: Path) -> None:
    refused(tmp_path, STEP % f"include: ['{glob}']", "nothing selected", code=3)


@pytest.mark.parametrize(
    "text",
    [
        'uvmerge: 1\n"\\e]0;x\\a\\x9b": 1\n',
        'uvmerge: 1\nsteps: ["\\e]0;x\\a\\x9b"]\n',
        STEP % 'top: "\\e]0;x\\a\\x9b\\u202e"',
        STEP % '"\\e]0;x\\a\\x9b": 1',
        STEP % 'modules: "\\e]0;x\\a\\x9b"',
        STEP % 'layers: "\\e]0;x\\a\\x9b"',
        STEP % 'values: "\\e]0;x\\a\\x9b"',
        'uvmerge: 1\ndtype: "\\e]0;x\\a\\x9b"\nsteps: [restore]\n',
        'uvmerge: 1\nname: ["\\e]0;x\\a\\x9b"]\nsteps: [restore]\n',
        "uvmerge: 1\nname: !<\x9b> 1\n",
    ],
)
def test_escapes_in_a_recipe_are_inert_in_its_refusal(text: str, tmp_path: Path) -> None:
    outcome = run(tmp_path, text)[0]
    faults.failed(outcome, "error: r.yaml", code=2)
    assert all(c.isprintable() or c == "\n" for c in outcome.err), ascii(outcome.err)


def test_the_name_of_a_recipe_is_data_in_the_card(tmp_path: Path) -> None:
    name = "x\\n---\\nlicense: evil\\n---\\n<script>\\e[2J"
    outcome, out = run(tmp_path, f'uvmerge: 1\nname: "{name}"\nsteps: [restore]\n')
    faults.done(outcome)
    card = (out / "README.md").read_text()
    assert card.count("\n---\n") == 1
    assert "\x1b" not in card


@pytest.mark.parametrize("setting", ["modules: []", "modules: ''", "layers: []", "stack: ','"])
def test_an_empty_list_is_refused_as_it_would_select_nothing(setting: str, tmp_path: Path) -> None:
    key = setting.partition(":")[0]
    what = f"error: r.yaml:3: --{key}: names nothing Leave the option out for all."
    refused(tmp_path, STEP % setting, what)
