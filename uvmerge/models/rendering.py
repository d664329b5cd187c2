"""Chats as texts, by the chat template of a checkpoint.

A chat template is a program that comes with a checkpoint. The sandbox of transformers keeps it from
files and from Python's internals; `limited` limits its time and memory, this module its output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .load import chat_renderer
from .sealing import first_line

SPARE_CHARACTERS = 2**20  # of a text, beyond four times the length of its messages
LONGEST_TEMPLATE = 2**20  # characters

Chat = Sequence[Mapping[str, str]]


class TemplateFailed(Exception):
    """A template fails for a chat; the message says why."""


def chat_text(template: str, chat: Chat, words: Mapping[str, Any]) -> str:
    """The chat as one text.

    Where the chat does not end with a message of the assistant, the template appends the opening of the
    assistant's answer.

    Args:
        words: further variables of the template: the special tokens by name.

    Raises:
        TemplateFailed: the template is no template, refuses the chat, or exceeds a limit.
    """
    if len(template) > LONGEST_TEMPLATE:
        raise TemplateFailed(f"it is longer than {LONGEST_TEMPLATE:,} characters")
    opens_answer = chat[-1]["role"] != "assistant"
    try:
        text = chat_renderer()([list(chat)], template, opens_answer, words)[0]
    except MemoryError:
        raise
    except Exception as error:  # whatever a template raises
        raise TemplateFailed(first_line(error)) from None
    if len(text) > SPARE_CHARACTERS + 4 * sum(len(message["content"]) for message in chat):
        raise TemplateFailed(f"it makes {len(text):,} characters of the messages")
    return text
