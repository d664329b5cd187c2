"""The tasks for lm-evaluation-harness: what the harness reads, and the harness itself."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from byte_model import write_byte_model
from command import process, uv

from uvmerge.tasks import hands, prompts
from uvmerge.tasks.cards import judge, judge_answer, solve

SIZES = {"": 234, "_large": 2000}
TASKS = [f"uvmerge_cards_{rule}{size}" for rule in hands.RULES for size in SIZES]


@pytest.fixture(scope="module")
def folder() -> Path:
    done = process("tasks-path")
    assert done.code == 0
    return Path(done.out.strip())


class Loader(yaml.SafeLoader):
    """Reads `!function` as the harness does: by the path of the Python file beside the YAML."""


def task(folder: Path, name: str) -> dict[str, Any]:
    """The settings of a task, those that it includes among them."""

    def function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        file, _, called = loader.construct_scalar(node).partition(".")
        spec = importlib.util.spec_from_file_location(file, folder / f"{file}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, called)

    Loader.add_constructor("!function", function)
    own = yaml.load((folder / f"{name}.yaml").read_text(), Loader)
    return yaml.load((folder / own.pop("include")).read_text(), Loader) | own


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the package `datasets`: a dataset is the list of its rows."""
    package = types.ModuleType("datasets")
    package.Dataset = types.SimpleNamespace(from_list=list)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", package)


def test_the_frozen_hands_are_those_that_are_drawn_from_the_seeds() -> None:
    assert hands.FILE.read_text() == hands.file_text(), "run `python -m uvmerge.tasks.hands`"


def test_every_frozen_hand_is_solved_and_out_of_domain_holds_a_face_card() -> None:
    for rule in hands.RULES:
        frozen = hands.frozen(rule)
        assert len(frozen) == len({hand.cards for hand in frozen}) == hands.LARGE
        assert all(judge(hand.solution, hand.values).ok for hand in frozen)
        assert all(judge_answer(prompts.right_answer(hand), hand.values).ok for hand in frozen)
    assert all(set(hand.cards) & {"J", "Q", "K"} for hand in hands.frozen("ood"))
    assert not all(set(hand.cards) & {"J", "Q", "K"} for hand in hands.frozen("id"))


def test_ranks_are_drawn_alike() -> None:
    """Without the condition of a solution each rank would be a thirteenth of the cards."""
    dealt = hands.deal("ood", 300, seed=7)
    assert dealt == hands.deal("ood", 300, seed=7) != hands.deal("ood", 300, seed=8)
    counts = [sum(hand.cards.count(rank) for hand in hands.frozen("id")) for rank in hands.RANKS]
    assert all(0.6 * 8000 / 13 < count < 1.4 * 8000 / 13 for count in counts)


def test_a_prompt_tells_the_rule_and_the_cards_and_not_the_solution() -> None:
    for rule, faces in (("id", "J, Q and K each count as 10"), ("ood", "J counts as 11")):
        hand = hands.frozen(rule)[0]
        text = prompts.prompt(hand)
        assert faces in text and json.dumps(hand.cards) in text and hand.solution not in text
        assert text.endswith("[Output]\n")


@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_its_hands_and_scores_the_solver_as_perfect(folder: Path, name: str) -> None:
    settings = task(folder, name)
    documents = settings["custom_dataset"](**settings["metadata"], pretrained="model")["test"]
    rule, large = name.split("_")[2], name.endswith("large")
    assert settings["task"] == name
    assert len(documents) == SIZES["_large" if large else ""]
    assert {document["rule"] for document in documents} == {rule}
    for document in documents:
        assert document["unordered"].split() == sorted(document["cards"], key=hands.RANKS.index)
    metrics = [settings["process_results"](each, [each["target"]]) for each in documents]
    assert {entry["metric"] for entry in settings["metric_list"]} == metrics[0].keys()
    assert all(each["success"] == 1 and each["format_error"] == 0 for each in metrics)
    wrong = settings["process_results"](documents[0], ["I do not know."])
    assert wrong == {"success": 0, "format_error": 1, "published": 0}


def test_the_group_holds_both_rules(folder: Path) -> None:
    for size in SIZES:
        group = yaml.safe_load((folder / f"uvmerge_cards{size}.yaml").read_text())
        assert group["group"] == f"uvmerge_cards{size}"
        assert group["task"] == [f"uvmerge_cards_{rule}{size}" for rule in hands.RULES]


def test_the_package_ships_the_files_of_the_tasks() -> None:
    root = hands.FILE.parents[2]
    assert "uvmerge.tasks = *.json, harness/*" in (root / "setup.cfg").read_text()


def test_importing_a_task_is_fast_and_brings_no_torch(folder: Path) -> None:
    code = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(folder)!r})\n"
        "started = time.process_time()\n"
        "import cards\n"
        "from uvmerge.tasks import hands\n"
        "assert len(hands.frozen('id')) == 2000\n"
        "assert time.process_time() - started < 0.5\n"
        "assert not {'torch', 'transformers', 'huggingface_hub', 'numpy'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tasks_path_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("uvmerge.cli.evaluate.find_spec", lambda name: None)
    shown = uv(capsys, "tasks-path")
    assert shown.err.splitlines() == [
        "note: lm-eval is not here; install it with: pip install 'uvmerge[eval]'"
    ]
    assert Path(shown.out.strip()).is_dir()


@pytest.mark.filterwarnings("default")
def test_the_harness_runs_the_group_and_scores_the_solver_as_perfect(folder: Path) -> None:
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    asked = {prompts.prompt(h): h for rule in hands.RULES for h in hands.frozen(rule)[:12]}

    class Solver(LM):  # type: ignore[misc]
        def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
            values = [asked[request.args[0]].values for request in requests]
            return [json.dumps({"formula": solve(each)[0]}) for each in values]

        def loglikelihood(self, requests: list[Any], **_: Any) -> Any:
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    assert set(TASKS) <= set(manager.all_subtasks)
    found = lm_eval.simple_evaluate(
        Solver(), tasks=["uvmerge_cards"], task_manager=manager, limit=12,
        bootstrap_iters=0,
    )  # fmt: skip
    for name in ("uvmerge_cards", "uvmerge_cards_id", "uvmerge_cards_ood"):
        scores = found["results"][name]
        assert scores["success,none"] == 1.0 and scores["format_error,none"] == 0.0
    for rule in hands.RULES:
        samples = found["samples"][f"uvmerge_cards_{rule}"]
        hashes = [{key: line[key] for key in ("doc_hash", "prompt_hash")} for line in samples]
        assert hashes == [prompts.hashes(hand) for hand in hands.frozen(rule)[:12]]


@pytest.mark.slow
def test_the_commands_of_the_documents_run_offline_on_two_models(
    folder: Path, tmp_path: Path
) -> None:
    run = ["--include_path", str(folder), "--tasks", "uvmerge_cards"]
    harness(tmp_path, "validate", *run)
    listed = harness(tmp_path, "ls", "subtasks", *run[:2])
    assert all(f"|{name} " in listed for name in TASKS)
    for seed in (0, 1):
        write_byte_model(tmp_path / f"tiny{seed}", seed=seed)
        model = ["--model", "hf", "--model_args", f"pretrained=tiny{seed},dtype=float32"]
        kept = ["--log_samples", "--output_path", "OUT"]
        harness(tmp_path, "run", *model, *run, "--limit", "12", *kept, "--device", "cpu")
    done = process("compare", "a=OUT/tiny0", "b=OUT/tiny1", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "uvmerge_cards_ood, success; 12 items" in done.out and "McNemar exact 0 : 0" in done.out


def harness(folder: Path, *words: str) -> str:
    """What `lm_eval WORDS…` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
