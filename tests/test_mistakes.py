"""Mistakes that people make: each message says where, what, and what to do, on stderr and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import faults
import pytest


@dataclass(frozen=True)
class Mistake:
    """A command and what its message has to say.

    Attributes:
        command: BASE, SFT, OUT, DIR and R stand for folders and a recipe that are there.
        code: the exit code.
        where, what, do: what the three parts hold; `where` from its beginning.
        recipe: the content of R.
    """

    command: str
    code: int
    where: str
    what: str
    do: str
    recipe: str = ""


PAIR = "BASE SFT OUT"
USAGE = "Usage: uvmerge restore BASE FINETUNED OUT"
RUN = "run R OUT --base BASE --finetuned SFT"
STEP = "uvmerge: 1\nsteps:\n  - "
MISTAKES = [
    # a command
    Mistake("restor BASE SFT OUT", 2, "restor", "is not a command", "Did you mean 'restore'?"),
    Mistake("slerp BASE SFT OUT", 2, "slerp", "is not a command", "`uvmerge merge slerp"),
    Mistake("TIES a b OUT", 2, "TIES", "is not a command", "`uvmerge merge ties BASE MODEL..."),
    Mistake("soup a b OUT", 2, "soup", "is not a command", "interpolate (the straight line"),
    Mistake("sweep diff BASE SFT", 2, "sweep diff", "is not a command", "`uvmerge sweep --help`"),
    # checkpoints and the output
    Mistake("restore BASE", 2, "restore", "FINETUNED is missing", USAGE),
    Mistake("restore BASE SFT", 2, "restore", "OUT is missing", USAGE),
    Mistake("restore BASE SFT SFT OUT", 2, "restore", "is one checkpoint too many", USAGE),
    Mistake("restore BASE SFT OUT -o x", 2, "restore", "is one checkpoint too many", USAGE),
    Mistake("show", 2, "show", "CHECKPOINT is missing", "Usage: uvmerge show"),
    Mistake("restore DIR/no/model SFT OUT", 3, "DIR/no/model", "is neither a folder", "Check"),
    Mistake("restore DIR/bse SFT OUT", 3, "DIR/bse", "there is no such folder", "Did you mean the"),
    Mistake("show ./bse", 3, "./bse", "there is no such folder", "Did you mean the folder 'base'?"),
    Mistake("show fintuned", 3, "fintuned", "there is no such folder, and from the Hub",
            "Did you mean the folder 'finetuned'?"),
    Mistake("show BASE/config.json", 3, "BASE/config.json", "is a file", "Name the folder"),
    Mistake("restore BASE SFT SFT/out", 2, "SFT/out", "lies inside the input", "Write to a folder"),
    Mistake("restore BASE SFT BASE", 2, "BASE", "is the input", "Write to a folder beside"),
    Mistake("restore BASE SFT DIR", 2, "DIR", "contains the input", "Write to a folder beside"),
    Mistake("restore BASE SFT FULL", 3, "FULL", "is not empty", "Choose another folder"),
    Mistake("restore BASE SFT ~nobody-here/x", 2, "~nobody-here/x", "is no user", "Write ./~nobody"),
    Mistake("diff BASE", 2, "diff", "FINETUNED is missing", "Usage: uvmerge diff"),
    # options
    Mistake(f"restore {PAIR} --tops 1", 2, "restore --tops", "is not an option", "mean '--top'?"),
    Mistake(f"restore {PAIR} -top 1", 2, "restore -t", "is not an option", "two dashes"),
    Mistake(f"restore {PAIR} --frac 0.2", 2, "restore --frac", "is not an option",
            "`--frac` is an option of reset-layers; restore takes `--top 0.2`"),
    Mistake(f"reset-layers {PAIR} --top 0.2", 2, "reset-layers --top", "is not an option",
            "restore, swap, truncate, values; reset-layers takes `--frac 0.25`"),
    Mistake(f"lines {PAIR} --alpha 0.2", 2, "lines --alpha", "is not an option",
            "It is called `--start` now"),
    Mistake(f"restore {PAIR} --top", 2, "restore --top", "requires an argument", "--help` says"),
    Mistake(f"restore {PAIR} --top 20", 2, "--top", "'20.0' is outside 0 to 1", "like 0.2 or 20%"),
    Mistake(f"restore {PAIR} --top most", 2, "--top", "'most' is not a number", "like 0.2 or 20%"),
    Mistake(f"restore {PAIR} --top 0.1,0.2", 2, "--top", "is not a number", "`uvmerge sweep`"),
    Mistake(f"restore {PAIR} --rank 1.5", 2, "--rank", "'1.5' is not a number", "a whole number"),
    Mistake(f"restore {PAIR} --top 0.1 --rank 3", 2, "--top and --rank", "together", "Keep one"),
    Mistake(f"restore {PAIR} --tail 0.1 --tail-rank 3", 2, "--tail and --tail-rank", "together",
            "Keep one"),
    Mistake(f"restore {PAIR} --values sft", 2, "--values", "is not one of finetuned", "Known: base"),
    Mistake(f"restore {PAIR} --dtype f16", 2, "--dtype", "is not one of keep", "mean 'fp16'?"),
    Mistake(f"restore {PAIR} --device tpu", 2, "--device", "is unknown", "Choose auto, cpu, cuda"),
    Mistake(f"restore {PAIR} --max-shard-size 5", 2, "--max-shard-size", "is not a size", "5GB"),
    Mistake(f"swap {PAIR}", 2, "swap", "no side given", "Add --left, --right"),
    # which tensors
    Mistake(f"restore {PAIR} --layers 9-1", 2, "--layers", "is not a range", "like 0-9,12"),
    Mistake(f"restore {PAIR} --layers 40", 3, "layers", "(0 to 1), not layer 40", "from 0"),
    Mistake(f"restore {PAIR} --modules attn", 2, "--modules", "'attn' is not a module",
            "Did you mean 'attention'?"),
    Mistake(f"restore {PAIR} --modules lm_head", 2, "--modules", "is not a module", "mean 'head'?"),
    Mistake(f"restore {PAIR} --modules blah", 2, "--modules", "is not a module", "Choose from"),
    Mistake(f"restore {PAIR} --include q_proj", 3, "selection", "nothing selected", "'*q_proj*' may"),
    Mistake(f"restore {PAIR} --stack layers", 3, "stack", "no stack 'layers'", "mean 'model.layers'?"),
    # sweeps
    Mistake(f"sweep restore {PAIR} --top 0.1", 2, "sweep", "one setting is no sweep", "0.1,0.2"),
    Mistake(f"sweep restore {PAIR} --top 0.1:0.5", 2, "--top", "is not a range", "0.1:0.5:0.1"),
    Mistake(f"sweep restore {PAIR} --top 0.5:0.1:0.1", 2, "--top", "is not a range", "LAST:STEP"),
    Mistake(f"sweep restore {PAIR} --top 0:1:0.0001", 2, "--top", "at most 1,000", "FIRST:LAST"),
    # recipes
    Mistake("run no.yaml OUT", 2, "no.yaml", "there is no such recipe", "`uvmerge run --list`"),
    Mistake("run R", 2, "run", "OUT is missing", "Usage: uvmerge run RECIPE [BASE FINETUNED] OUT"),
    Mistake(RUN, 2, "r.yaml:2", "a tab stands where", "Indent with spaces", "steps:\n\t- restore\n"),
    Mistake(RUN, 2, "r.yaml:2", "the list that begins here with [ is not closed (read to line 4)",
            "Add ]", "uvmerge: 1\nsteps: [restore,\n  swap\nname: x\n"),
    Mistake(RUN, 2, "r.yaml:3", "the list of keys that begins here with {", "Add }",
            STEP + "restore: {top: 0.1\n\n"),
    Mistake(RUN, 2, "r.yaml:1", "the text in quotes that begins", "the other quote", 'name: "x\n\n'),
    Mistake(RUN, 2, "r.yaml:2", "weight has no value for a", "Add `weight",
            "merge_method: ties\nmodels: [{model: a}]\nbase_model: b\n"),
    Mistake(RUN, 2, "r.yaml:3", "soup: is not an operation", "interpolate", STEP + "soup: {t: 1}\n"),
    Mistake(RUN, 2, "r.yaml:3", "restore: frac: is not an option", "`frac` is an option of reset-la",
            STEP + "restore: {frac: 0.1}\n"),
    Mistake(RUN, 2, "r.yaml:2", "'half' is unknown", "Known: bf16", f"uvmerge: 1\ndtype: half\n{STEP[11:]}swap\n"),
    # after a run
    Mistake("check DIR/empty", 3, "DIR/empty", "is no output of uvmerge", "Name a folder"),
    Mistake("check DIR/nothing", 3, "DIR/nothing", "is not there", "Name a folder"),
    Mistake("check DIR/fintuned", 3, "DIR/fintuned", "is not there", "Did you mean the folder"),
    Mistake("check BASE/config.json", 3, "BASE/config.json", "is a file", "Name a folder"),
    Mistake("check BROKEN", 4, "BROKEN", "truncated: ", "uvmerge did not write this folder"),
    Mistake("demo OUT --hands few", 2, "demo --hands", "not a valid integer", "--help` says"),
]  # fmt: skip


def test_the_list_is_long_enough() -> None:
    assert len(MISTAKES) >= 25
    assert len({(each.command, each.recipe) for each in MISTAKES}) == len(MISTAKES)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The words of the commands that stand for something on the disk."""
    folder = tmp_path_factory.mktemp("here")
    base, finetuned, out = faults.pair(folder, layers=2)
    broken = folder / "broken"
    broken.mkdir()
    whole = (base / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[:-8])
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")
    return {
        "BASE": str(base), "SFT": str(finetuned), "OUT": str(out), "DIR": str(folder),
        "FULL": str(folder / "full"), "BROKEN": str(broken), "R": str(folder / "r.yaml"),
    }  # fmt: skip


def filled(text: str, here: dict[str, str]) -> str:
    return re.sub(r"\b(BASE|SFT|OUT|DIR|FULL|BROKEN|R)\b", lambda m: here[m[0]], text)


KINDS = {2: ("UsageError", "RecipeError"), 3: ("InputRefused",), 4: ("ProblemsFound",)}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m.command} {m.recipe[:20]!r}")
def test_a_mistake_is_answered_with_where_what_and_what_to_do(
    mistake: Mistake, here: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here["DIR"])
    Path(here["R"]).write_text(mistake.recipe)
    before = faults.tree(Path(here["DIR"]))
    words = [filled(word, here) for word in mistake.command.split()]
    at = len(words) - words[-1].startswith("--")
    plain, as_json = faults.uvmerge(*words), faults.uvmerge(*words[:at], "--json", *words[at:])
    assert (plain.code, plain.out) == (mistake.code, ""), plain
    assert (as_json.code, as_json.err) == (plain.code, plain.err), as_json
    assert faults.tree(Path(here["DIR"])) == before
    error = json.loads(as_json.out)["error"]
    assert list(error) == ["kind", "where", "what", "do"] and all(error.values())
    assert error["kind"] in KINDS[mistake.code]
    assert error["where"].startswith(filled(mistake.where, here)), error
    assert mistake.what in error["what"] and mistake.do in error["do"], error
    if mistake.code < 4:
        assert plain.err == f"error: {error['where']}: {error['what']}\n  {error['do']}\n"


def test_options_of_help_and_completion_are_refused_in_the_same_look() -> None:
    for words in (["help", "--all"], ["completion", "--zsh"]):
        outcome = faults.uvmerge(*words)
        assert outcome.code == 2 and outcome.err.startswith(f"error: {words[0]} {words[1]}: is not")
    outcome = faults.uvmerge("completion")
    assert (outcome.code, outcome.out) == (2, "")
    said = (
        "error: completion: needs a shell: bash, zsh, fish\n  For bash: uvmerge completion bash\n"
    )
    assert outcome.err == said


def test_problems_of_a_check_are_sentences_apart(here: dict[str, str]) -> None:
    outcome = faults.uvmerge("check", here["BROKEN"])
    problem, do = outcome.err.splitlines()[1:]
    assert re.search(r"describes [\d,]+\. Download or save the file again\.$", problem)
    assert do.startswith("  uvmerge did not write this folder")
    data = json.loads(faults.uvmerge("check", here["BROKEN"], "--json").out)
    assert data["ok"] is False and data["problems"] == [problem.strip()]
