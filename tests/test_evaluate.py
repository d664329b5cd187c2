"""`uvmerge eval cards`: the protocol of several attempts, at an endpoint and with local models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byte_model import write_byte_model
from chat_server import answering
from command import process, uv

import uvmerge
from uvmerge.hub import endpoint
from uvmerge.tasks import hands, prompts, statistics

ANSWERS = {
    json.dumps(hand.cards): prompts.right_answer(hand)
    for rule in hands.RULES
    for hand in hands.frozen(rule)[:160]
}


def right(request: dict[str, Any]) -> str:
    """The solution of the hand that a request asks."""
    question = request["messages"][0]["content"]
    return next(answer for cards, answer in ANSWERS.items() if cards in question)


def wrong_wrong_right(request: dict[str, Any]) -> str:
    return {1: "no idea", 3: '{"formula": "1+1"}'}.get(len(request["messages"])) or right(request)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_verifiers_sentence_is_fed_back_until_the_answer_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with answering(wrong_wrong_right) as (address, asked):
        words = ["eval", "cards", address, "--rule", "ood", "--hands", 1, "--out", tmp_path / "out"]
        done = uv(capsys, *words, "--json")
        assert done.code == 0, done.err
        assert uv(capsys, *words).code == 0  # finished: nothing is asked again
    assert len(asked) == 3
    scores = json.loads(done.out)["tasks"]["uvmerge_cards_ood"]
    assert [scores[name]["right"] for name in ("success@1", "success@5")] == [0, 1]
    assert scores["format_error@1"]["share"] == 1 and scores["hands"] == 1
    messages = asked[2]["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[1]["content"] == "no idea" and "no JSON object" in messages[2]["content"]
    assert "does not use each of the numbers 13, 9, 8, 10 exactly once" in messages[4]["content"]
    assert len({request["seed"] for request in asked}) == 3
    assert all("hf_secret" not in str(request["headers"]) for request in asked)
    head, *attempts = lines(tmp_path / "out" / "attempts.jsonl")
    assert head["seed"] == 0 and head["model"] == {"url": address, "name": None}
    assert [each["seed"] for each in attempts] == [request["seed"] for request in asked]
    assert [each["reason"] for each in attempts] == ["format", "cards", "ok"]
    hashes = prompts.hashes(hands.frozen("ood")[0])
    assert lines(tmp_path / "out" / "samples.jsonl") == [
        {"task": "uvmerge_cards_ood", "doc_id": 0, **hashes, "unordered": "8 9 10 K", "attempts": 3,
         "success@1": 0, "success@5": 1, "published@1": 0, "format_error@1": 1}
    ]  # fmt: skip


def test_a_hand_is_given_up_after_its_last_attempt_and_the_table_shows_both_rules() -> None:
    with answering(lambda request: "no") as (address, asked):
        done = uvmerge.evaluate_cards(address, hands=3, attempts=2)
    assert len(asked) == done.asked == 12
    assert all(sample["attempts"] == 2 and not sample["success@2"] for sample in done.samples)
    shown = str(done)
    assert (
        "success@2 (95 %)" in shown and "uvmerge_cards_id" in shown and "uvmerge_cards_ood" in shown
    )
    assert "0.000 (0.000-0.561)" in shown


def test_orders_of_one_hand_are_not_counted_as_independent(tmp_path: Path) -> None:
    asked = hands.frozen("id")[:160]
    seen = Counter(hand.unordered for hand in asked)
    known = {json.dumps(hand.cards) for hand in asked if seen[hand.unordered] > 1}
    assert 5 < len(known) < 60

    def answer(request: dict[str, Any]) -> str:
        question = request["messages"][0]["content"]
        return right(request) if any(cards in question for cards in known) else "no"

    out = tmp_path / "out"
    with answering(answer) as (address, _):
        done = uvmerge.evaluate_cards(address, rule="id", hands=160, attempts=1, out=out, batch=4)
    score = json.loads((out / "results.json").read_text())["tasks"]["uvmerge_cards_id"]["success@1"]
    (low, high), (narrow_low, narrow_high) = score["by_hand"], score["wilson"]
    assert score["right"] == len(known) and high - low > 1.2 * (narrow_high - narrow_low)
    clusters = [hand.unordered for hand in asked]
    values = np.array([float(json.dumps(hand.cards) in known) for hand in asked])
    error = statistics.cluster_standard_error(values, clusters)
    assert high - low == pytest.approx(2 * statistics.Z * error, rel=0.1)
    assert f"{score['share']:.3f} ({low:.3f}-{high:.3f})" in str(done)
    row = uvmerge.compare([out]).tables[0].rows[0]
    assert row.interval == (narrow_low, narrow_high) and row.by_hand == (low, high)


def test_a_killed_run_is_resumed_and_asks_nothing_twice(tmp_path: Path) -> None:
    half, killed = 12, threading.Event()
    answered = Counter[str]()
    kept, lock = tmp_path / "out" / "attempts.jsonl", threading.Lock()

    def answer(request: dict[str, Any]) -> str:
        with lock:
            if sum(answered.values()) < half or killed.is_set():
                answered[json.dumps(request["messages"])] += 1
                return wrong_wrong_right(request)
        killed.wait(60)
        return "too late"  # the process that asked is gone

    with answering(answer) as (address, _):
        words = ["eval", "cards", address, "--rule", "id", "--hands", "10", "--batch", "3"]
        command = [sys.executable, "-m", "uvmerge", *words, "--out", str(tmp_path / "out")]
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not kept.exists() or kept.read_bytes().count(b"\n") < half + 1:
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait()
        with kept.open("a") as file:
            file.write('{"rule": "id", "doc')  # a line that the kill cut off
        killed.set()
        done = process(*words, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["asked"] == 30 - half
    assert len(answered) == 30 and set(answered.values()) == {1}
    assert len(lines(kept)) == 31
    scores = json.loads(done.out)["tasks"]["uvmerge_cards_id"]
    assert scores["success@1"]["right"] == 0 and scores["success@5"]["right"] == 10


def test_what_another_run_left_or_changed_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with answering(right) as (address, asked):
        words = ["eval", "cards", address, "--rule", "id", "--hands", 3, "--out", out, "-q"]
        assert uv(capsys, *words).code == 0 and len(asked) == 3
        refused = uv(capsys, *words, "--seed", 1)
        assert refused.code == 3 and "another run (other seed)" in refused.err
        path = out / "attempts.jsonl"
        path.write_text(path.read_text().replace('"success":1', '"success":0', 1))
        assert uv(capsys, *words).code == 0 and len(asked) == 4  # one line was not as written
        (out / "notes.txt").write_text("mine")
        refused = uv(capsys, *words)
        assert (
            refused.code == 3
            and "holds more than an evaluation (1 other: notes.txt)" in refused.err
        )
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
        (out / "notes.txt").unlink()
        assert uv(capsys, *words).code == 3 and not (tmp_path / "elsewhere").exists()


def test_answers_on_their_way_are_kept_where_another_request_fails(tmp_path: Path) -> None:
    failed, words = (
        threading.Event(),
        {"rule": "id", "hands": 6, "batch": 2, "out": tmp_path / "out"},
    )
    first = hands.frozen("id")[0]

    def answer(request: dict[str, Any]) -> str | int:
        if json.dumps(first.cards) in request["messages"][0]["content"] and not failed.is_set():
            failed.set()
            return 400
        assert failed.wait(30)
        time.sleep(0.1)  # the failure arrives first
        return right(request)

    with answering(answer) as (address, asked):
        with pytest.raises(uvmerge.RunFailed, match="status 400"):
            uvmerge.evaluate_cards(address, **words)
        before = len(asked)
        assert 1 <= before < 5  # what was not sent yet is not sent any more
        assert len(lines(tmp_path / "out" / "attempts.jsonl")) == before + 1
        done = uvmerge.evaluate_cards(address, **words)
        assert done.asked == 6 - before and len(asked) == 6


def test_a_busy_endpoint_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_WAITS_S", (0.0, 0.0))
    statuses = iter([503, 429])
    with answering(lambda request: next(statuses, None) or right(request)) as (address, asked):
        done = uvmerge.evaluate_cards(address, hands=1, rule="id", batch=1)
    assert len(asked) == 1 and done.samples[0]["success@1"] == 1


@pytest.mark.parametrize(("status", "hint"), [(401, "UVMERGE_API_KEY"), (400, "--model-name")])
def test_an_endpoint_that_refuses_is_one_line_and_a_hint(
    status: int, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(lambda request: status) as (address, _):
        failed = uv(capsys, "eval", "cards", address, "--hands", 1, "-q")
    assert failed.code == 1 and str(status) in failed.err and hint in failed.err
    assert len(failed.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [(["http://127.0.0.1:9/v1"], 1, "the endpoint gives no answer"),
     (["http://me:secret@host/v1"], 2, "is not the base URL"), (["http:///v1"], 2, "is not the base URL"),
     (["neither/a/model"], 3, "neither a folder nor a Hub id"),
     (["http://host/v1", "--attempts", "0"], 2, "attempts"),
     (["http://host/v1", "--rule", "all"], 2, "rule"), ([".", "--model-name", "m"], 2, "--model-name")],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(
    words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = uv(capsys, "eval", "cards", *words, "--hands", "1", "-q")
    assert failed.code == code and sentence in failed.err and "secret" not in failed.err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that reads bytes, with a chat template."""
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    return write_byte_model(tmp_path_factory.mktemp("model"), chat_template=template)


@pytest.mark.parametrize("template", [True, False])
def test_a_local_model_answers_alike_in_any_batch(
    template: bool, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in model.iterdir():
        if template or path.name != "chat_template.jinja":
            os.link(path, folder / path.name)
    words = ["eval", "cards", folder, "--hands", 3, "--attempts", 2, "--max-tokens", 8, "-q"]
    words += ["--temperature", 1]
    for batch in (1, 4):
        done = uv(capsys, *words, "--batch", batch, "--out", tmp_path / f"{batch}", "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["model"]["label"] == "model"
    one, four = (lines(tmp_path / name / "attempts.jsonl") for name in ("1", "4"))
    key = ("rule", "doc_id", "attempt")
    ordered = [sorted(each[1:], key=lambda line: [line[k] for k in key]) for each in (one, four)]
    assert ordered[0] == ordered[1] and len(ordered[0]) == 12
    assert len({line["answer"] for line in one[1:]}) > 6


def test_a_model_is_not_its_own_output(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = uv(capsys, "eval", "cards", model, "--out", model / "out", "-q")
    assert refused.code == 2 and "lies inside" in refused.err
