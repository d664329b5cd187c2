"""`uvmerge eval ccci`: completers, what is skipped and said, resuming, comparing; and the lm-eval task."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import answering
from command import process, uv
from java import TOOLS, needs_jdk, needs_sandbox
from test_evaluate import lines, model  # noqa: F401

import uvmerge
from uvmerge.cli.evaluate import tasks as tasks_room
from uvmerge.tasks.ccci import judge, metrics, sandbox, scoring
from uvmerge.tasks.ccci.benchmark import asked, tasks

HARNESS = Path(str(tasks_room.__file__)).parent / "harness"
ANSWERS = {asked(task.hole)[1].text: task.hole.gold for task in tasks()}


def gold(request: dict[str, Any]) -> str:
    """The code that was there, as a chat model writes it."""
    code = ANSWERS[request["messages"][0]["content"]]
    return f"Here is the missing code:\n\n```java\n{code}\n```\nIt sets every field."


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH without a JDK."""
    (tmp_path / "no-programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))


@needs_sandbox
def test_gold_is_perfect_and_the_json_holds_what_is_promised(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["eval", "ccci", "--completer", "gold", "--limit", 4]
    done = uv(capsys, *words, "--json", "--out", out)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["n"] == told["asked"] == 4 and told["skipped"] == 0 and told["seconds"] > 0
    for name in ("build_pass", *(m for m in metrics.METRICS if m not in told["missing"])):
        assert told[name] == 1.0, name
    assert told["sandbox"] == TOOLS[1]
    assert told["wilson"] == [pytest.approx(0.5101, abs=1e-4), 1.0]
    assert told["kinds"]["scope"]["n"] == 4 and told["families"]["one-to-one"]["build_pass"] == 1
    rows = lines(out / "samples.jsonl")
    assert [row["build_pass"] for row in rows] == [1] * 4
    assert [row["code"] for row in rows] == [task.hole.gold for task in tasks()[:4]]
    head, *kept = lines(out / "attempts.jsonl")
    assert head["model"] == {"completer": "gold"} and head["without"] == []
    assert [line["id"] for line in kept] == [task.hole.id for task in tasks()[:4]]


@needs_sandbox
@pytest.mark.slow
def test_acceptance_of_the_whole_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(uv(capsys, "eval", "ccci", "--completer", "gold", "--json", "-q").out)
    assert told["n"] >= 40 and told["missing"].keys() <= {"codebleu"}
    assert {told[k] for k in ("build_pass", *metrics.METRICS) if k not in told["missing"]} == {1.0}
    told = json.loads(uv(capsys, "eval", "ccci", "--completer", "empty", "--json", "-q").out)
    assert told["build_pass"] == told.get("codebleu", 0.0) == 0.0
    assert uvmerge.evaluate_ccci("rules", without=uvmerge.tasks.ccci.KINDS).as_data()[
        "build_pass"
    ] == 0.0  # fmt: skip


@pytest.mark.usefixtures("no_java")
def test_without_a_jdk_tests_are_skipped_and_said_and_the_others_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = uv(capsys, "eval", "ccci", "--completer", "gold", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["skipped"] == told["n"] == len(tasks()) and "build_pass" not in told
    assert told["bleu4"] == told["edit_similarity"] == told["exact_match"] == 1.0
    assert "apt-get install openjdk-17-jdk-headless" in told["missing"]["build_pass"]
    shown = uv(capsys, "eval", "ccci", "--completer", "gold", "--limit", 2).out
    assert "skipped: 2 of 2 holes" in shown and "build_pass is not measured: no javac" in shown


@needs_jdk
def test_without_a_sandbox_tests_are_skipped_unless_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    javac = os.path.realpath(str(shutil.which("javac")))
    (tmp_path / "javac").symlink_to(javac)
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.best_walls.cache_clear()
    words = ["eval", "ccci", "--completer", "gold", "--limit", 2, "--json", "-q"]
    try:
        told = json.loads(uv(capsys, *words).out)
        assert told["skipped"] == told["n"] == 2 and "build_pass" not in told
        assert "bubblewrap" in told["missing"]["build_pass"]
        told = json.loads(uv(capsys, *words, "--no-sandbox").out)
        assert told["build_pass"] == 1.0 and told["skipped"] == 0 and told["sandbox"] == "none"
    finally:
        sandbox.best_walls.cache_clear()


@needs_jdk
def test_walls_that_do_not_work_here_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A bwrap that may not make namespaces is as good as none."""
    javac = os.path.realpath(str(shutil.which("javac")))
    (tmp_path / "javac").symlink_to(javac)
    for name in ("bwrap", "unshare"):
        (tmp_path / name).write_text("#!/bin/sh\necho no permission >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.best_walls.cache_clear()
    try:
        assert "no sandbox works here" in str(judge.available())
        found = judge.available(no_sandbox=True)
        assert isinstance(found, tuple) and found[1] == sandbox.NONE
    finally:
        sandbox.best_walls.cache_clear()


@pytest.mark.usefixtures("no_java")
def test_without_codebleu_the_rest_is_measured_and_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "has_codebleu", lambda: False)
    monkeypatch.setattr(metrics, "has_codebleu", lambda: False)
    told = json.loads(uv(capsys, "eval", "ccci", "--completer", "gold", "--limit", 2, "--json").out)
    assert "codebleu" not in told and told["bleu4"] == 1.0
    assert "uvmerge[ccci]" in told["missing"]["codebleu"]


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [(["--completer", "gold", "--without", "smell"], 2, "there is no kind 'smell'"),
     (["--completer", "rules", "--style", "infill"], 2, "is for a local model"),
     (["--completer", "http://h/v1", "--style", "plain"], 2, "is for a local model"),
     (["--completer", "neither/a/model"], 3, "neither a folder nor a Hub id"),
     (["--completer", "gold", "--limit", "0"], 2, "limit"), ([], 2, "COMPLETER is missing"),
     (["--completer", "gold", "--budget", "3"], 2, "hold no piece of context")],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(
    words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = uv(capsys, "eval", "ccci", *words, "-q")
    assert failed.code == code and sentence in failed.err, failed.err
    assert "Traceback" not in failed.err


def test_a_missing_package_is_one_line_that_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    failed = uv(capsys, "eval", "ccci", "--completer", "gold")
    assert failed.code == 2 and "pip install 'uvmerge[ccci]'" in failed.err


@pytest.mark.usefixtures("no_java")
def test_an_endpoint_is_asked_once_for_each_hole_though_the_run_was_killed(
    tmp_path: Path,
) -> None:
    count, half, killed = 10, 5, threading.Event()
    answered, lock = Counter[str](), threading.Lock()
    kept = tmp_path / "out" / "attempts.jsonl"

    def answer(request: dict[str, Any]) -> str:
        with lock:
            if sum(answered.values()) < half or killed.is_set():
                answered[request["messages"][0]["content"]] += 1
                return gold(request)
        killed.wait(60)
        return "too late"  # the process that asked is gone

    with answering(answer) as (address, _):
        words = ["eval", "ccci", "--completer", address, "--limit", str(count), "--batch", "2"]
        command = [sys.executable, "-m", "uvmerge", *words, "--out", str(tmp_path / "out")]
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not kept.exists() or kept.read_bytes().count(b"\n") < half + 1:
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait()
        killed.set()
        done = process(*words, "--out", tmp_path / "out", "--json")
        assert done.code == 0, done.err
        told = json.loads(done.out)
        assert told["asked"] == count - half and told["exact_match"] == 1.0
        assert len(answered) == count and set(answered.values()) == {1}
        other = process(*words, "--out", tmp_path / "out", "--without", "tables")
    assert other.code == 3 and "(other without)" in other.err
    assert len(answered) == count


@pytest.mark.usefixtures("no_java")
def test_a_run_goes_on_with_more_holes(tmp_path: Path) -> None:
    with answering(gold) as (address, seen):
        first = uvmerge.evaluate_ccci(address, limit=2, out=tmp_path / "out")
        more = uvmerge.evaluate_ccci(address, limit=3, out=tmp_path / "out")
    assert (first.asked, more.asked, len(seen)) == (2, 1, 3)
    assert len(more.samples) == 3 and more.as_data()["exact_match"] == 1.0


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize("style", ["instruct", "plain", "infill"])
def test_a_local_model_is_asked_in_its_own_style(
    style: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from uvmerge.models.chat import LocalModel

    folder = shutil.copytree(model, tmp_path / "model")
    if style != "instruct":
        (folder / "chat_template.jinja").unlink()
    if style == "infill":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokens = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
        table = tokenizer.get_vocab()
        text = (folder / "tokenizer.json").read_text()
        spare = [word for word in sorted(table, key=table.get) if len(word) == 1][-3:]
        for word, token in zip(spare, tokens):
            text = text.replace(f"{json.dumps(word, ensure_ascii=False)}:", f"{json.dumps(token)}:")
        (folder / "tokenizer.json").write_text(text)
    given: list[Any] = []
    asking = LocalModel.answers

    def answers(self: LocalModel, chats: Any, *rest: Any, **more: Any) -> Any:
        given.extend(chats)
        return asking(self, chats, *rest, **more)

    monkeypatch.setattr(LocalModel, "answers", answers)
    words = ["eval", "ccci", "--completer", folder, "--limit", 2, "--max-tokens", 4, "--json", "-q"]
    done = uv(capsys, *words, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert json.loads(done.out)["model"]["label"] == "model" and len(given) == 2
    if style == "instruct":
        assert given[0][0]["content"].startswith("You complete Java code")
    else:
        assert given[0].startswith("<|fim_prefix|>" if style == "infill" else "/*\n[scope]")
    again = uv(capsys, *words, "--out", tmp_path / "out")
    assert again.code == 0 and json.loads(again.out)["asked"] == 0 and len(given) == 2


@pytest.mark.usefixtures("no_java")
def test_two_runs_are_paired_by_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gold", "empty"):
        assert uv(capsys, "eval", "ccci", "--completer", name, "--out", tmp_path / name).code == 0
    found = uv(capsys, "compare", tmp_path / "gold", tmp_path / "empty", "--json")
    assert found.code == 0, found.err
    told = json.loads(found.out)
    assert "uvmerge_ccci" in found.out and "exact_match" in json.dumps(told)
    uvmerge.evaluate_ccci("rules", without=["tables"], out=tmp_path / "without")
    refused = uv(capsys, "compare", tmp_path / "gold", tmp_path / "without")
    assert refused.code == 3 and "without" in refused.err
    assert uv(capsys, "compare", tmp_path / "gold", tmp_path / "without", "--force").code == 0


def test_the_task_of_the_harness_is_marked_as_one_that_runs_code() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    told = yaml.load((HARNESS / "uvmerge_ccci.yaml").read_text(), Loader)
    assert told["task"] == "uvmerge_ccci" and told["unsafe_code"] is True
    names = {each["metric"] for each in told["metric_list"]}
    assert names == {"build_pass", "compiles", *metrics.METRICS}


@needs_sandbox
@pytest.mark.filterwarnings("default")
def test_the_harness_runs_the_task_when_code_may_run() -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: pip install 'uvmerge[eval]'")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Completer(LM):  # type: ignore[misc]
        def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
            return [ANSWERS[request.args[0]] for request in requests]

        def loglikelihood(self, requests: list[Any], **_: Any) -> Any:
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    manager = TaskManager(include_path=str(HARNESS), include_defaults=False)
    words: dict[str, Any] = {
        "tasks": ["uvmerge_ccci"], "task_manager": manager, "limit": 3, "bootstrap_iters": 0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="unsafe"):
        lm_eval.simple_evaluate(Completer(), **words)
    found = lm_eval.simple_evaluate(Completer(), confirm_run_unsafe_code=True, **words)
    scores = found["results"]["uvmerge_ccci"]
    assert scores["build_pass,none"] == scores["exact_match,none"] == scores["bleu4,none"] == 1.0
    assert [each["doc"]["id"] for each in found["samples"]["uvmerge_ccci"]] == [
        task.hole.id for task in tasks()[:3]
    ]
    assert not isinstance(TOOLS, str)


@pytest.mark.slow
@needs_sandbox
def test_the_harness_runs_a_tiny_model_and_its_samples_are_compared(
    model: Path, tmp_path: Path,  # noqa: F811
) -> None:  # fmt: skip
    pytest.importorskip("lm_eval", reason="needs lm-eval: pip install 'uvmerge[eval]'")
    folders = []
    for name in ("one", "two"):
        words = [
            "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32",
            "--include_path", str(HARNESS), "--tasks", "uvmerge_ccci", "--limit", "3",
            "--log_samples", "--confirm_run_unsafe_code", "--device", "cpu",
            "--output_path", str(tmp_path / name), "--gen_kwargs", "max_gen_toks=8",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "lm_eval", *words], capture_output=True, text=True,
            env={**os.environ, "HF_DATASETS_OFFLINE": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        folders.append(next((tmp_path / name).iterdir()))
    found = process("compare", f"one={folders[0]}", f"two={folders[1]}", "--json")
    assert found.code == 0, found.err
    assert "uvmerge_ccci" in found.out and "build_pass" in found.out
