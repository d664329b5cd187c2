"""Chat templates in a process of their own, with limits of time, memory and output.

A chat template is a program that comes with a checkpoint. The sandbox of transformers keeps it from
files and from Python's internals, but does not limit its time, memory or output.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

START_S = 60  # to import transformers
LIMIT_S, CHAT_S = 3.0, 0.02  # for one chat; for each further one, on average
MEMORY_BYTES = 2 * 2**30
SPARE_CHARACTERS = 2**20  # of a text, beyond four times the length of its messages
ALL_CHARACTERS = 2**28  # of all texts
LONGEST_TEMPLATE = 2**20  # characters
_CHILD = (
    "import sys; sys.path[:] = sys.argv[1:]; from uvmerge.models import rendering as r; r.child()"
)

Chat = Sequence[Mapping[str, str]]


class TemplateFailed(Exception):
    """A template failed for the chat with this index; the message says why."""

    def __init__(self, index: int, what: str) -> None:
        self.index = index
        super().__init__(what)


def chat_texts(template: str, chats: Sequence[Chat], words: Mapping[str, Any]) -> list[str]:
    """Each chat as one text.

    Where a chat does not end with a message of the assistant, the template appends the opening of the
    assistant's answer.

    Args:
        words: further variables of the template: the special tokens by name.

    Raises:
        TemplateFailed: for the first chat for which the template fails or exceeds a limit.
    """
    if len(template) > LONGEST_TEMPLATE:
        raise TemplateFailed(0, f"it is longer than {LONGEST_TEMPLATE:,} characters")
    task = json.dumps({"template": template, "chats": chats, "words": words})
    package = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *sys.path, package], input=task.encode(), capture_output=True
    )
    texts: list[str] = []
    for line in done.stdout.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        answer = json.loads(line)
        if "error" in answer:
            raise TemplateFailed(len(texts), answer["error"])
        texts.append(answer["text"])
    if len(texts) < len(chats):
        is_slow = done.returncode == -signal.SIGALRM
        ends = f"it does not end within {LIMIT_S:.0f} s"
        raise TemplateFailed(len(texts), ends if is_slow else f"code {done.returncode}")
    return texts


def child() -> None:
    """Render the chats that standard input holds, and print a line of JSON for each."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default action ends this process at once
    signal.alarm(START_S)
    task = json.load(sys.stdin.buffer)
    from .load import chat_renderer
    from .sealing import first_line

    render = chat_renderer()
    _limit_memory()
    started, characters = time.monotonic(), 0
    for number, chat in enumerate(task["chats"]):
        left_s = LIMIT_S + CHAT_S * number - (time.monotonic() - started)
        signal.setitimer(signal.ITIMER_REAL, min(max(left_s, CHAT_S), LIMIT_S))
        try:
            text = render([chat], task["template"], _opens_answer(chat), task["words"])[0]
            most = SPARE_CHARACTERS + 4 * sum(len(m["content"]) for m in chat)
            answer = {"text": text}
            characters += len(text)
            if len(text) > most or characters > ALL_CHARACTERS:
                answer = {"error": f"it makes {characters:,} characters of the messages"}
        except MemoryError:
            answer = {"error": f"it needs more than {MEMORY_BYTES // 2**30} GiB of memory"}
        except Exception as error:  # whatever a template raises
            answer = {"error": first_line(error)}
        print(json.dumps(answer), flush=True)
        if "error" in answer:
            return


def _opens_answer(chat: Chat) -> bool:
    """Whether the template is to append the opening of the assistant's answer."""
    return chat[-1]["role"] != "assistant"


def _limit_memory() -> None:
    """Let this process grow by `MEMORY_BYTES` at most, where the system supports such a limit."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (OSError, ValueError):
        pass
