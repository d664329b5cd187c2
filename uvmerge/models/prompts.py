"""Prompts, read from a file of JSON lines."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..text import brief, expanded, inert

LIMIT_BYTES, LIMIT_PROMPTS = 64 * 2**20, 100_000
KEYS = ("prompt", "text", "messages")
FORMAT = 'Write {"prompt": "…"}, {"text": "…"}, {"messages": […]} or "…", one on each line.'


@dataclass(frozen=True)
class Prompt:
    """One line of a prompts file.

    Attributes:
        where: `file:line`, for error messages.
        content: a text, or the messages of a chat, each with a `role` and a `content`.
    """

    where: str
    content: str | tuple[Mapping[str, str], ...]


def read_prompts(path: str | Path) -> list[Prompt]:
    """The prompts of a file of JSON lines; blank lines are skipped.

    A line is `{"prompt": "…"}`, `{"text": "…"}` or `{"messages": [{"role": "…", "content": "…"}]}`,
    with any other keys, or a string alone. A file has at most 64 MiB and 100,000 prompts.

    Raises:
        UsageError: names the file or the line, and what is wrong with it.
    """
    path = expanded(path)
    name = inert(path.name)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "there is no such file of prompts"
            raise UsageError(inert(path), what, FORMAT)
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(inert(path), f"cannot be read: {error.strerror}", FORMAT) from None
    if len(raw) > LIMIT_BYTES:
        raise UsageError(name, f"is larger than {LIMIT_BYTES // 2**20} MiB", "Take fewer prompts.")
    prompts = []
    for number, line in enumerate(raw.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            prompts.append(_prompt(line, f"{name}:{number}"))
        if len(prompts) > LIMIT_PROMPTS:
            what = f"has more than {LIMIT_PROMPTS:,} prompts"
            raise UsageError(name, what, "Take fewer: some hundred tell as much.")
    if not prompts:
        raise UsageError(name, "has no prompts", FORMAT)
    return prompts


def _prompt(line: bytes, where: str) -> Prompt:
    """The prompt that one line holds."""
    try:
        data = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else brief(error)
        raise UsageError(where, f"is not JSON: {what}", FORMAT) from None
    if isinstance(data, dict):
        keys = [key for key in KEYS if key in data]
        if len(keys) != 1:
            what = f"has {' and '.join(keys)}" if keys else f"has none of {', '.join(KEYS)}"
            raise UsageError(where, what, FORMAT)
        if keys == ["messages"]:
            return Prompt(where, _messages(data["messages"], where))
        data = data[keys[0]]
    return Prompt(where, _text(data, where))


def _messages(data: object, where: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(data, list) or not data or not all(isinstance(m, dict) for m in data):
        raise UsageError(where, "messages must be a list of messages", FORMAT)
    return tuple({key: _text(m.get(key), where) for key in ("role", "content")} for m in data)


def _text(data: object, where: str) -> str:
    if not isinstance(data, str):
        raise UsageError(where, "a prompt, a role and a content must be text", FORMAT)
    try:
        data.encode()
    except UnicodeEncodeError:
        raise UsageError(
            where, "has half of a surrogate pair, which is no character", "Save it as UTF-8."
        ) from None
    return data
