"""Chat templates in a process of their own, with limits of time, memory and output.

A chat template is a program that a checkpoint brings. transformers' sandbox keeps it from
everything outside, and lets it loop, or count, for as long as it likes.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

START_S, LIMIT_S, CHAT_S = 60, 3.0, 0.02  # to import transformers; for all chats, and more for each
MEMORY_BYTES = 2 * 2**30
SPARE_CHARACTERS = 2**20  # of a text, beyond four times its messages
_CHILD = (
    "import sys; sys.path[:] = sys.argv[1:]; from uvmerge.models import rendering as r; r.child()"
)

Chat = Sequence[Mapping[str, str]]


class TemplateFailed(Exception):
    """A template has no text for the chat of this index; the message says why."""

    def __init__(self, index: int, what: str) -> None:
        self.index = index
        super().__init__(what)


def rendered(template: str, chats: Sequence[Chat], words: Mapping[str, Any]) -> list[str]:
    """Each chat as one text.

    A chat that does not end with the assistant's message is followed by what opens its answer.

    Args:
        words: what else the template may name: the special tokens.

    Raises:
        TemplateFailed: for the first chat for which the template fails or exceeds its limits.
    """
    task = json.dumps({"template": template, "chats": chats, "words": words})
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *sys.path], input=task.encode(), capture_output=True
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
    """Render what stands on standard input, and write a line of JSON for each chat."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends this process whatever it is doing
    signal.alarm(START_S)
    task = json.load(sys.stdin.buffer)
    from .load import chat_renderer, first_line

    render = chat_renderer()
    _limit_memory()
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S + CHAT_S * len(task["chats"]))
    for chat in task["chats"]:
        try:
            text = render([chat], task["template"], _opens_answer(chat), task["words"])[0]
            most = SPARE_CHARACTERS + 4 * sum(len(m["content"]) for m in chat)
            answer = {"text": text}
            if len(text) > most:
                answer = {"error": f"it makes {len(text):,} characters of the messages"}
        except MemoryError:
            answer = {"error": f"it needs more than {MEMORY_BYTES // 2**30} GiB of memory"}
        except Exception as error:  # whatever a template raises
            answer = {"error": first_line(error)}
        print(json.dumps(answer), flush=True)
        if "error" in answer:
            return


def _opens_answer(chat: Chat) -> bool:
    return chat[-1]["role"] != "assistant"


def _limit_memory() -> None:
    """Let this process grow by so much and no more, where the system can tell and keep it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (OSError, ValueError):
        pass
