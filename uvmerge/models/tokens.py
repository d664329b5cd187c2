"""Token ids of prompts, by tokenizers and chat templates that come with checkpoints."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputRefused, UsageError, UvmergeError
from . import limited
from .load import import_transformers, load_tokenizer
from .prompts import Prompt
from .rendering import TemplateFailed, chat_text
from .sealing import first_line

_ERRORS = {"InputRefused": InputRefused, "UsageError": UsageError}


def token_ids(folders: Sequence[Path], prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt, on which the tokenizers of all checkpoints have to agree.

    The template of the first checkpoint, the base, makes messages a text with special tokens in it; the
    tokenizer adds special tokens only to prompts without messages. All of this is done in a process
    with limits of time and memory.

    Raises:
        InputRefused: a checkpoint has no tokenizer, or one that gives other ids than the base's or
            exceeds a limit.
        UsageError: a prompt has no tokens, or has messages while the base has no template for them.
    """
    import_transformers()
    sequences: list[list[int]] = []
    step: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="uvmerge-") as scratch:
        try:
            for answer in limited.answers(lambda: _work(folders, prompts, scratch)):
                if isinstance(answer, list):
                    sequences.append(answer)
                elif "error" in answer:
                    raise _ERRORS[answer["error"]](*answer["said"])
                else:
                    step = answer
        except limited.Exceeded as exceeded:
            raise _stopped(str(exceeded), step, folders, prompts) from None
    return sequences


def _work(folders: Sequence[Path], prompts: Sequence[Prompt], scratch: str) -> Iterator[Any]:
    """In the child: each step before it is taken, the ids of each prompt, and what is refused."""
    tempfile.tempdir = scratch  # the parent removes it even where this process is stopped
    try:
        tokenizers = []
        for number, folder in enumerate(folders):
            yield {"folder": number, "seconds": limited.START_S}
            limited.stop_after(limited.START_S)
            tokenizers.append(load_tokenizer(folder))
        template = _template(tokenizers[0], prompts)
        limited.limit_memory()
        clock = limited.Clock()
        for number, prompt in enumerate(prompts):
            text = prompt.content
            if not isinstance(text, str):
                characters = sum(len(message["content"]) for message in text)
                yield {"template": number, "seconds": clock.allow(characters)}
                text = _as_text(prompt, template, tokenizers[0])
            base: list[int] = []
            for index, tokenizer in enumerate(tokenizers):
                yield {"folder": index, "prompt": number, "seconds": clock.allow(len(text))}
                ids = _ids(tokenizer, text, folders[index], prompt)
                base = base if index else ids
                _check_ids(ids, base, folders[index], prompt)
            yield base
    except UvmergeError as error:
        yield {"error": type(error).__name__, "said": [str(error.where), error.what, error.do]}


def _template(tokenizer: Any, prompts: Sequence[Prompt]) -> str:
    """The base's chat template; empty where no prompt has messages."""
    chats = [prompt for prompt in prompts if not isinstance(prompt.content, str)]
    if not chats:
        return ""
    if not tokenizer.chat_template:
        raise UsageError(
            chats[0].where,
            "has messages, and the base's tokenizer has no chat template",
            'Write the text as the base is to read it: {"prompt": "…"}.',
        )
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise _template_fails(chats[0], first_line(error)) from None
    return template


def _as_text(prompt: Prompt, template: str, tokenizer: Any) -> str:
    """The messages of a prompt as one text."""
    chat: Any = prompt.content
    try:
        return chat_text(template, chat, tokenizer.special_tokens_map)
    except TemplateFailed as error:
        raise _template_fails(prompt, str(error)) from None


def _ids(tokenizer: Any, text: str, folder: Path, prompt: Prompt) -> list[int]:
    """Token ids of a text."""
    is_plain = isinstance(prompt.content, str)
    try:
        return [int(id) for id in tokenizer(text, add_special_tokens=is_plain)["input_ids"]]
    except MemoryError:
        raise
    except BaseException as error:  # a panic of compiled code is no Exception
        what = f"its tokenizer fails on {prompt.where}: {first_line(error)}"
        raise _tokenizer_refused(folder, what) from None


def _check_ids(ids: list[int], base: list[int], folder: Path, prompt: Prompt) -> None:
    """Refuse other ids than the base's, and a prompt without any."""
    if ids != base:
        what = f"its tokenizer gives other token ids than the base's for {prompt.where}"
        do = "Next-token distributions compare over one tokenizer only."
        raise InputRefused(folder, what, do)
    if not ids:
        raise UsageError(prompt.where, "gives no tokens", "Leave the line out.")


def _stopped(
    why: str, step: dict[str, Any], folders: Sequence[Path], prompts: Sequence[Prompt]
) -> UvmergeError:
    """The error for the step at which the child was stopped."""
    seconds = step.get("seconds", limited.START_S)
    takes = f"end within {seconds:.0f} s" if seconds >= 1 else "go on fast enough"
    why = why.replace("end in time", takes)
    if "template" in step:
        return _template_fails(prompts[step["template"]], f"it {why}")
    on = f" on {prompts[step['prompt']].where}" if "prompt" in step else ""
    return _tokenizer_refused(folders[step.get("folder", 0)], f"its tokenizer {why}{on}")


def _template_fails(prompt: Prompt, why: str) -> UsageError:
    return UsageError(
        prompt.where,
        f"the base's chat template fails on it: {why}",
        "Write messages as the template wants them, or the text itself.",
    )


def _tokenizer_refused(folder: Path, what: str) -> InputRefused:
    return InputRefused(folder, what, "Take the tokenizer that the model was trained with.")
