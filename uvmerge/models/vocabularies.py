"""The tokens of a checkpoint, as the `tokenizers` library reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..checkpoint.bounded import parse_json
from ..checkpoint.folder import Checkpoint
from ..checkpoint.tokenizer_json import Tokenizer
from ..errors import InputRefused, UvmergeError
from . import limited
from .clean import LARGEST_BYTES
from .load import import_transformers, load_tokenizer
from .sealing import first_line

FILE = "tokenizer.json"
MOST_TOKENS = 1 << 22
_DO = "Add the model's tokenizer files."


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a checkpoint.

    Attributes:
        tokens: id by token, added tokens included, in the order of the ids.
        tokenizer: its `tokenizer.json`; converted where the checkpoint has an older format.
    """

    tokens: dict[str, int]
    tokenizer: Tokenizer


def vocabulary_of(checkpoint: Checkpoint) -> Vocabulary:
    """The tokens of a checkpoint; its tokenizer is read in a process with limits of time and memory.

    Raises:
        InputRefused: the checkpoint has no tokenizer, or one that cannot be read within the limits.
    """
    text = ""
    if FILE in checkpoint.side_names():
        text = _text(checkpoint)
    else:
        import_transformers()
    found: dict[str, Any] = {}
    try:
        for answer in limited.answers(lambda: _work(checkpoint, text)):
            found |= answer
    except limited.Exceeded as exceeded:
        raise _refused(checkpoint, f"its tokenizer {exceeded}") from None
    if "error" in found:
        raise InputRefused(*found["error"])
    largest = max(found["tokens"].values(), default=0)
    if largest >= MOST_TOKENS:
        raise _refused(checkpoint, f"its tokenizer has a token with the id {largest:,}")
    content = parse_json((text or found["text"]).encode(), FILE, "it", depth=0)
    return Vocabulary(found["tokens"], Tokenizer(checkpoint.label, content))


def _text(checkpoint: Checkpoint) -> str:
    """The content of `tokenizer.json`."""
    if (size := checkpoint.side_size(FILE)) > LARGEST_BYTES:
        what = f"its {FILE} has {size:,} bytes, none has more than {LARGEST_BYTES:,}"
        raise _refused(checkpoint, what)
    try:
        return checkpoint.side_bytes(FILE).decode()
    except UnicodeDecodeError:
        raise _refused(checkpoint, f"{FILE} is not valid text") from None


def _work(checkpoint: Checkpoint, text: str) -> Iterator[dict[str, Any]]:
    """In the child: the tokens, and the text of a tokenizer that had to be converted; or an error."""
    from tokenizers import Tokenizer as Backend

    try:
        if not text:
            backend = getattr(load_tokenizer(checkpoint.on_disk()), "backend_tokenizer", None)
            if backend is None:
                raise _refused(checkpoint, "its tokenizer is none of the `tokenizers` library")
            text = backend.to_str()
            yield {"text": text}
        limited.limit_memory()
        found = Backend.from_str(text).get_vocab(with_added_tokens=True)
        yield {"tokens": dict(sorted(found.items(), key=lambda each: (each[1], each[0])))}
    except UvmergeError as error:
        yield {"error": [str(error.where), error.what, error.do]}
    except MemoryError:
        raise
    except BaseException as error:  # a panic of compiled code is no Exception
        refused = _refused(checkpoint, f"its tokenizer cannot be read: {first_line(error)}")
        yield {"error": [str(refused.where), refused.what, refused.do]}


def _refused(checkpoint: Checkpoint, what: str) -> InputRefused:
    return InputRefused(checkpoint.label, what, _DO)
