"""Token ids of prompts: templates and tokenizers that would not end are stopped, and named."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from test_rendering import ANSWERED, BASE, CHAT

from uvmerge import InputRefused, UsageError
from uvmerge.models import limited, tokens
from uvmerge.models.prompts import Prompt
from uvmerge.models.tokens import token_ids

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
PLAIN = [Prompt("p:1", "ten J Q 3 4 =")]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited, "LIMIT_S", 1.0)


def with_template(folder: Path, template: str) -> Path:
    shutil.copytree(BASE, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def with_rules(folder: Path, **rules: Any) -> Path:
    shutil.copytree(BASE, folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | rules))
    return folder


def test_ids_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    base = with_template(tmp_path / "base", "{{ messages[-1].content }}<eos>")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    found = token_ids([base, BASE], [*PLAIN, Prompt("p:2", tuple(CHAT))])
    assert found == [
        tokenizer(PLAIN[0].content)["input_ids"],
        tokenizer("ten J<eos>", add_special_tokens=False)["input_ids"],
    ]


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (ENDLESS, "it does not end within 1 s"),
        ("{{ 10 ** (10 ** 9) }}", "it does not end within 1 s"),
        ("{{ 'a' * 10 ** 10 }}", "it needs more than 2 GiB of memory"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__'"),
    ],
    ids=["loops", "a number", "memory", "unsafe"],
)
def test_a_template_without_end_is_stopped(template: str, what: str, tmp_path: Path) -> None:
    base = with_template(tmp_path / "base", template)
    tokens.import_transformers()
    started = time.monotonic()
    with pytest.raises(UsageError, match=f"p:1: the base's chat template fails on it: {what}"):
        token_ids([base], [Prompt("p:1", tuple(CHAT))])
    assert time.monotonic() - started < 15


def test_the_prompt_that_a_template_fails_on_is_named(tmp_path: Path) -> None:
    template = "{% if messages | length > 2 %}" + ENDLESS + "{% endif %}{{ messages[1].content }}"
    folder = with_template(tmp_path / "base", template)
    chats = [Prompt(f"p:{i}", tuple(chat)) for i, chat in enumerate((CHAT, CHAT, CHAT, ANSWERED))]
    chats[1] = Prompt("p:1", "ten J")
    assert token_ids([folder], chats[:3]) == [token_ids([BASE], chats[1:2])[0]] * 3
    with pytest.raises(UsageError, match="p:3: the base's chat template fails on it: it does not"):
        token_ids([folder], chats)


def test_many_slow_prompts_are_stopped_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited, "LIMIT_S", 0.2)

    def slow() -> Iterator[int]:
        clock = limited.Clock()
        for number in range(1000):
            clock.allow(0)
            time.sleep(0.1)
            yield number

    found: list[int] = []
    with pytest.raises(limited.Exceeded, match="does not end in time"):
        found.extend(limited.answers(slow))


DOUBLING = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}


@pytest.mark.parametrize("copies", [10, 40])
def test_a_tokenizer_without_end_is_stopped(copies: int, tmp_path: Path) -> None:
    """Each rule doubles the text: 10 of them give a thousand characters for each e, 40 never end."""
    rules = {"type": "Sequence", "normalizers": [DOUBLING] * copies}
    folder = with_rules(tmp_path / "tuned", normalizer=rules)
    what = {
        10: "gives other token ids than the base's for p:1",
        40: "needs more than 2 GiB|does not",
    }
    with pytest.raises(InputRefused, match=f"its tokenizer ({what[copies]})"):
        token_ids([BASE, folder], PLAIN)


def test_what_a_stopped_process_had_on_disk_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(_: Path) -> None:
        (Path(tempfile.mkdtemp()) / "copy").touch()
        while True:
            time.sleep(0.1)

    monkeypatch.setattr(limited, "START_S", 0.5)
    monkeypatch.setattr(tokens, "load_tokenizer", endless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputRefused, match="its tokenizer does not"):
        token_ids([BASE], PLAIN)
    assert not list(tmp_path.iterdir())


def failing(act: Callable[[], Any]) -> Callable[[], Iterator[str]]:
    def work() -> Iterator[str]:
        yield "first"
        act()
        yield "never"

    return work


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (os.abort, r"needs more than 2 GiB of memory, or breaks off \(SIGABRT\)"),
        (lambda: os._exit(3), r"breaks off \(code 3\)"),
        (lambda: 1 / 0, r"breaks off \(code 1\)"),
        (lambda: input("yes?"), r"breaks off \(code 1\)"),
    ],
)
def test_a_process_that_breaks_off_says_how(act: Callable[[], Any], why: str) -> None:
    found = limited.answers(failing(act))
    assert next(found) == "first"
    with pytest.raises(limited.Exceeded, match=why):
        next(found)


def test_no_process_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    children = []
    monkeypatch.setattr(os, "fork", lambda real=os.fork: children.append(real()) or children[-1])
    found = limited.answers(failing(lambda: time.sleep(60)))
    assert next(found) == "first"
    started = time.monotonic()
    found.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 10
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], os.WNOHANG)
