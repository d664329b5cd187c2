"""Files made to be slow, deep or large to parse; lines and names that nobody should believe."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
import xxhash
import yaml
import zoo
from faults import done, failed, refused

import uvmerge
from uvmerge.checkpoint import bounded
from uvmerge.output import card, journal, manifest

MANY = 200_000


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    return faults.pair(tmp_path)


@contextmanager
def quickly(seconds: float = 1) -> Iterator[None]:
    """What is inside takes less than these seconds of this process."""
    started = time.process_time()
    yield
    assert time.process_time() - started < seconds


def plant(folder: Path, header: bytes, data: bytes = b"") -> Path:
    """A weight file with this header, as it stands."""
    file = folder / zoo.SINGLE
    file.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return file


# Bounded parsing


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,0]}}' % b",".join([b"9" * 30] * MANY),
         "needs over 2^497 bytes, the header gives it 0"),
        (b'{"a":{"dtype":"F32","shape":[],"data_offsets":[%s]}}' % b",".join([b"1"] * MANY),
         "lacks dtype, shape or offsets"),
        (b'{%s,"k1":{}}' % b",".join(b'"k%d":{}' % i for i in range(MANY)),
         "its header has the key 'k1' twice"),
        (b'{"__metadata__":{%s,"k199999":""}}' % b",".join(b'"k%d":""' % i for i in range(MANY)),
         "its header has the key 'k199999' twice"),
        (b'{"a":' * 100_000, "its header is nested deeper than 64 levels"),
        (b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", "lacks dtype, shape or offsets"),
        (b'{"a":{"dtype":"F32","shape":[' + b"[" * 900 + b"]" * 900 + b'],"data_offsets":[0,0]}}',
         "has impossible shape or offsets"),
    ],
    ids=["numbers", "offsets", "early key", "late key", "depth", "depth in a tensor", "in a shape"],
)  # fmt: skip
def test_a_header_made_to_be_slow_is_refused_within_a_second(
    header: bytes, sentence: str, pair: faults.Pair
) -> None:
    plant(pair[1], header)
    with quickly():
        refused(pair, sentence)


def test_a_shape_of_many_ones_or_with_a_zero_is_a_shape(pair: faults.Pair) -> None:
    ones, zero = ",".join(["1"] * MANY), ",".join(["9" * 29] * MANY)
    header = f'{{"a":{{"dtype":"F32","shape":[{ones}],"data_offsets":[0,4]}}'
    header += f',"b":{{"dtype":"F32","shape":[{zero},0],"data_offsets":[4,4]}}}}'
    with quickly(), uvmerge.Checkpoint.open(plant(pair[1], header.encode(), b"1234").parent) as it:
        assert it.size_bytes == 4


def test_two_hundred_thousand_tensors_are_judged_in_about_a_second(pair: faults.Pair) -> None:
    span = '{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}'
    entries = (f'"layers.{i}.w":{span % (i, i + 1)}' for i in range(MANY))
    plant(pair[1], f"{{{','.join(entries)}}}".encode(), bytes(MANY))
    import gc

    gc.disable()  # as every command does that opens a checkpoint
    try:
        with quickly(2):  # of a busy machine
            checkpoint = uvmerge.Checkpoint.open(pair[1])
    finally:
        gc.enable()
    assert len(checkpoint.headers[zoo.SINGLE].entries) == MANY


@pytest.mark.parametrize("name", ["config.json", zoo.INDEX])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"a":' * 100_000, "it is nested deeper than 64 levels"),
        (b'{"a":%s}' % (b"[" * 200 + b"]" * 200), "it is nested deeper than 64 levels"),
        (b'{%s,"k7":0}' % b",".join(b'"k%d":0' % i for i in range(MANY)), "the key 'k7' twice"),
    ],
    ids=["depth", "closed depth", "keys"],
)  # fmt: skip
def test_a_config_or_index_made_to_be_slow_is_refused_within_a_second(
    name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    pair = faults.pair(tmp_path, shards=2)
    (pair[1] / name).write_bytes(content)
    with quickly():
        refused(pair, f"{name}: ", sentence)


def test_a_config_of_64_levels_is_read_and_one_of_65_is_not(pair: faults.Pair) -> None:
    for depth, accepted in ((62, True), (64, False)):
        deep = json.loads("[" * depth + "]" * depth)
        (pair[1] / "config.json").write_text(json.dumps(faults.CONFIG | {"deep": [deep]}))
        assert (faults.uvmerge("show", pair[1]).code == 0) == accepted


@pytest.mark.parametrize(
    ("name", "limit"), [("config.json", "16.8 MB"), (zoo.INDEX, "67.1 MB"), ("uvmerge.json", "")]
)
def test_an_enormous_small_file_is_refused_unread(name: str, limit: str, tmp_path: Path) -> None:
    """In a process with 2 GB of address space; the file is sparse."""
    pair = faults.pair(tmp_path, shards=2)
    with (pair[1] / name).open("ab") as file:
        file.truncate(20 * 10**9)
    command = "check" if name == "uvmerge.json" else "show"
    words = [sys.executable, "-m", "uvmerge", command, str(pair[1])]
    process = subprocess.run(
        ["sh", "-c", 'ulimit -v 2000000 && exec "$@"', "sh", *words], capture_output=True, text=True
    )
    assert process.returncode == (4 if command == "check" else 3), process.stderr
    said = f"{name}: has 20,000,000,000 bytes, such a file has at most {limit}"
    assert said in " ".join(process.stderr.split())


def test_an_enormous_card_costs_its_start_alone(pair: faults.Pair) -> None:
    card = pair[1] / "README.md"
    card.write_text("---\nlicense: mit\n---\n")
    with card.open("ab") as file:
        file.truncate(20 * 10**9)
    with quickly():
        done(faults.uvmerge("reset-layers", "--frac", "0.5", *pair))
    assert "license: mit" in (pair[2] / "README.md").read_text()


def test_a_pipe_or_a_growing_file_has_no_content(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(uvmerge.InputRefused, match="is not a file"):
        bounded.read_small(tmp_path / "pipe", 100)
    (tmp_path / "small").write_bytes(b"x" * 101)
    with pytest.raises(uvmerge.InputRefused, match="has 101 bytes, such a file has at most 100 B"):
        bounded.read_small(tmp_path / "small", 100)
    assert bounded.read_small(tmp_path / "small", 101) == b"x" * 101


# The licence of a model card


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: apache-2.0", "apache-2.0"),
        ("tags: [a]\nlicense:\n- mit\n- bsd\nlanguage: en", ["mit", "bsd"]),
        ("license:\n  other\nlanguage: en", "other"),
        ("x: &a [1]\nlicense: mit\ny: *a", "mit"),
        ("model-index:\n" + "- {license: no, a: 1}\n" * 20_000 + "license: mit", "mit"),
        ("license: " + "[" * 330 + "]" * 330, None),
        ("license: " + "[" * 100_000, None),
        ("license: &a x", None),
        ("license: *a", None),
        ("license: !!python/object/apply:os.mkdir [owned]", None),
        ("license: {<<: {a: b}}", None),
        ("license: 2024-01-01", None),
        ("license: 3", None),
        ("license: [a, 3]", None),
        ("license: []", None),
        ("license:", None),
        ("license: \x00", None),
        ('license: "\\ud800"', None),
        ("license: mit\nlicense: other", "mit"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_of_a_card_the_licence_alone_is_parsed(
    front: str, licence: Any, pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("no table of a card may be built")

    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        monkeypatch.setattr(loader, "construct_mapping", never)
        monkeypatch.setattr(loader, "flatten_mapping", never)
    (pair[1] / "README.md").write_text(f"---\n{front}\n---\n# Model\n")
    with uvmerge.Checkpoint.open(pair[1]) as checkpoint, quickly():
        assert card.said(card._front(checkpoint), "license") == licence


MERGE_BOMB = "a: &a {k: v}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{', '.join([f'*{chr(97 + i)}'] * 9)}]}}\n"
    for i in range(20)
)


def test_a_bomb_of_merge_keys_is_refused_by_no_version_of_pyyaml_but_here(
    pair: faults.Pair, tmp_path: Path
) -> None:
    (pair[1] / "README.md").write_text(f"---\nlicense: mit\n{MERGE_BOMB}---\n")
    with quickly():
        done(faults.uvmerge("reset-layers", "--frac", "0.5", *pair))
    recipe = tmp_path / "r.yaml"
    recipe.write_text("uvmerge: 1\n" + MERGE_BOMB)
    with quickly():
        outcome = faults.uvmerge("run", recipe, tmp_path / "other")
    failed(outcome, "r.yaml:2: anchors and aliases are not allowed", code=2)


def test_a_list_that_stands_twice_in_a_recipe_from_python_is_no_alias() -> None:
    globs = ["*q_proj*"]
    steps = [{"restore": {"include": globs}}, {"swap": {"include": globs}}]
    recipe = uvmerge.Recipe.from_data({"uvmerge": 1, "steps": steps})
    assert [step.selection.include for step in recipe.steps] == [("*q_proj*",)] * 2


@pytest.mark.parametrize("value", [object(), Path("a"), 1j])
def test_a_value_that_no_recipe_can_hold_is_refused(value: object) -> None:
    with pytest.raises(uvmerge.RecipeError, match="holds a value that a file cannot"):
        uvmerge.Recipe.from_data({"uvmerge": 1, "name": value, "steps": ["restore"]})


# Journal and manifest


@pytest.fixture
def unfinished(pair: faults.Pair) -> faults.Pair:
    """An interrupted run with some of its matrices done."""
    with faults.full_disk(after=12):
        assert faults.restore(*pair).code == 1
    assert any("record" in line for line in faults.pieces(pair[2]))
    return pair


def signed(entry: dict[str, Any]) -> str:
    """A line of the journal, with the hash that belongs to it."""
    return journal.line_of({k: v for k, v in entry.items() if k != "line_xxh3_64"})


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], str]:
    """A line of the journal after a change, with a new hash."""

    def line(entry: dict[str, Any]) -> str:
        change(entry)
        return signed(entry)

    return line


def first(table: dict[str, Any]) -> Any:
    return next(iter(table.values()))


FORGED: dict[str, Callable[[dict[str, Any]], str]] = {
    "changed, with the old hash": lambda e: json.dumps(e | {"record": {"ghost": {}}}) + "\n",
    "a made-up tensor": edited(lambda e: e["record"].update(ghost=first(e["record"]))),
    "another tensor": edited(lambda e: e.update(record={"ghost": first(e["record"])})),
    "no record": edited(lambda e: e.pop("record")),
    "a record of another type": edited(lambda e: e.update(record=["ghost"])),
    "an entry of another type": edited(lambda e: e.update(record=dict.fromkeys(e["record"], 7))),
    "a change of another type": edited(
        lambda e: [entry.update(relative_change="x") for entry in e["record"].values()]
    ),
    "an unknown key": edited(lambda e: [entry.update(x=1) for entry in e["record"].values()]),
    "a missing key": edited(lambda e: [entry.pop("changed") for entry in e["record"].values()]),
    "a size of another type": edited(lambda e: e.update(size=float(e["size"]))),
    "a hash of another type": edited(lambda e: e.update(xxh3_128=7)),
    "a hash of another length": edited(lambda e: e.update(xxh3_128="")),
    "an offset that is true": edited(lambda e: e.update(offset=True)),
    "nested without end": lambda e: signed(e | {"record": {}}).replace("{}", "[" * 90_000),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_line_of_the_journal_is_done_again(
    forged: Callable[[dict[str, Any]], str], unfinished: faults.Pair
) -> None:
    expected = faults.undisturbed(unfinished)
    place = faults.staging(unfinished[2]) / "journal.jsonl"
    head, *lines = place.read_text().splitlines(keepends=True)
    lines = [forged(json.loads(line)) if "record" in line else line for line in lines]
    place.write_text(head + "".join(lines))
    done(faults.restore(*unfinished))
    assert faults.contents(unfinished[2]) == expected
    assert "ghost" not in (unfinished[2] / "uvmerge.json").read_text()


def test_a_line_nested_deep_under_a_right_hash_is_no_entry() -> None:
    text = '{"record":' + "[" * 90_000 + "]" * 90_000 + "}"
    line = f'{text[:-1]},"line_xxh3_64":"{xxhash.xxh3_64_hexdigest(text.encode())}"}}\n'
    assert journal.parse_line(line.encode()) == {}
    assert journal.parse_line(journal.line_of({"a": 1}).encode()) == {"a": 1}


def test_an_enormous_journal_is_not_read(unfinished: faults.Pair) -> None:
    expected = faults.undisturbed(unfinished)
    os.truncate(faults.staging(unfinished[2]) / "journal.jsonl", 20 * 10**9)
    with quickly():
        done(faults.restore(*unfinished))
    assert faults.contents(unfinished[2]) == expected


def change_manifest(out: Path, change: Callable[[dict[str, Any]], object], hashed: bool) -> None:
    """Let `change` work on the manifest of `out`, and give it its new hash where `hashed`."""
    content = json.loads((out / "uvmerge.json").read_text())
    change(content)
    if hashed:
        content[manifest.HASH] = manifest._own_hash(content)
    (out / "uvmerge.json").write_bytes(manifest.to_bytes(content))


def ghost(content: dict[str, Any]) -> None:
    content["edited"]["ghost"] = first(content["edited"])


def test_a_manifest_that_was_edited_is_not_believed(pair: faults.Pair, tmp_path: Path) -> None:
    done(faults.restore(*pair))
    whole = json.loads((pair[2] / "uvmerge.json").read_text())
    assert list(whole)[-1] == manifest.HASH and manifest.made_by_uvmerge(pair[2])
    change_manifest(pair[2], ghost, hashed=False)
    assert not manifest.made_by_uvmerge(pair[2])
    failed(faults.uvmerge("check", pair[2]), "was changed after uvmerge wrote it", code=4)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["edited"].update(dict.fromkeys(c["edited"], 7)),
        lambda c: [e.update(relative_change="x") for e in c["edited"].values()],
        lambda c: [e.pop("relative_change") for e in c["edited"].values()],
        lambda c: [f.update(bytes="x") for f in c["files"].values()],
        lambda c: [f.update(xxh3_128=7) for f in c["files"].values()],
        lambda c: c.update(reset=[{}]),
        lambda c: c.update(recipe=7),
    ],
)
def test_a_manifest_of_other_types_is_one_problem_and_no_traceback(
    change: Callable[[dict[str, Any]], object], pair: faults.Pair
) -> None:
    done(faults.restore(*pair))
    change_manifest(pair[2], change, hashed=True)
    for options in ([], ["--against", pair[1]]):
        outcome = faults.uvmerge("check", pair[2], *options)
        failed(outcome, "is not a manifest as uvmerge writes it", code=4)


def test_a_swept_setting_with_an_edited_manifest_is_not_kept(
    pair: faults.Pair, tmp_path: Path
) -> None:
    words = ("sweep", "restore", *pair, "--top", "0.1,0.2", "--quiet")
    done(faults.uvmerge(*words))
    change_manifest(pair[2] / "top-0.1", ghost, hashed=False)
    assert "ghost" not in (pair[2] / "sweep.json").read_text()
    failed(faults.uvmerge(*words), "top-0.1: is not empty", code=3)


# Names


NOT_UTF8 = os.fsdecode(b"\xff")


def test_a_pattern_that_is_not_text_is_refused_before_the_work(pair: faults.Pair) -> None:
    for option in ("--include", "--exclude", "--modules", "--stack"):
        refused(pair, f"{option}: ", "'\\udcff*' is not", code=2, options=(option, NOT_UTF8 + "*"))


def test_a_shard_whose_name_is_not_text_is_refused_with_its_name(pair: faults.Pair) -> None:
    name = f"m{NOT_UTF8}.safetensors"
    (pair[1] / zoo.SINGLE).rename(pair[1] / name)
    faults.write_index(pair[1], dict.fromkeys(faults.tensors(), name))
    refused(pair, "names the file 'm\\udcff.safetensors', which is not valid text")


@pytest.mark.parametrize("metadata", [b'{"format":"\\ud800"}', b'{"\\udfff":"pt"}'])
def test_metadata_that_is_not_text_is_refused_before_the_work(
    metadata: bytes, pair: faults.Pair
) -> None:
    raw = (pair[1] / zoo.SINGLE).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = raw[8 : 8 + length].replace(b'{"format":"pt"}', metadata)
    header = header.replace(b'{"format": "pt"}', metadata)
    assert metadata in header
    plant(pair[1], header, raw[8 + length :])
    refused(pair, "__metadata__ holds '\\ud", "which is not valid text", options=())


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a\ud800"], "the name 'a\\ud800' is not valid text"),
        ([1, "1"], "has two tensors of one name"),
    ],
)
def test_keys_of_a_pickle_that_cannot_be_names_are_refused(
    names: list[Any], sentence: str, pair: faults.Pair
) -> None:
    (pair[1] / zoo.SINGLE).unlink()
    torch.save({name: torch.ones(2, 2) for name in names}, pair[1] / "pytorch_model.bin")
    refused(pair, sentence, options=("--allow-pickle",))


def test_a_pickle_whose_file_name_is_not_text_is_refused(pair: faults.Pair) -> None:
    (pair[1] / zoo.SINGLE).unlink()
    torch.save(faults.tensors(), pair[1] / "pytorch_model.bin")
    (pair[1] / "pytorch_model.bin").rename(pair[1] / f"pytorch_model{NOT_UTF8}.bin")
    what = "the name of 'pytorch_model\\udcff.bin' is not valid text"
    refused(pair, what, options=("--allow-pickle",))


def test_folders_whose_names_are_not_text_are_worked_in(tmp_path: Path) -> None:
    base, finetuned, _ = faults.pair(tmp_path)
    folder = tmp_path / NOT_UTF8
    for source in (base, finetuned):
        shutil.copytree(source, folder / f"{source.name}{NOT_UTF8}")
    out = folder / f"out{NOT_UTF8}"
    words = [folder / f"{source.name}{NOT_UTF8}" for source in (base, finetuned)]
    done(faults.restore(*words, out, "--report", folder / "report", "--factors", folder / "kept"))
    done(faults.uvmerge("check", out, "--against", words[1], "--json"))
    done(faults.uvmerge("sweep", "interpolate", *words, folder / "swept", "--scale", "0.1,0.2"))
    assert "\\udcff" not in (out / "uvmerge.json").read_text(encoding="utf-8")


def test_text_of_a_config_that_cannot_be_encoded_is_carried_through(pair: faults.Pair) -> None:
    config = json.dumps(faults.CONFIG | {"id2label": {"0": "\ud83d"}, "model_type": "\udcff"})
    (pair[1] / "config.json").write_text(config)
    done(faults.restore(*pair))
    assert (pair[2] / "config.json").read_text() == config
    assert manifest.to_bytes({"a": "\ud83d"}) == b'{\n  "a": "\\ud83d"\n}\n'


def test_a_locale_without_unicode_breaks_no_output(pair: faults.Pair) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for words in (["show", pair[1]], ["restore", *pair, "--dry-run"], ["restore", "--help"]):
        process = subprocess.run(
            [sys.executable, "-m", "uvmerge", *map(str, words)],
            capture_output=True, env=environment,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
