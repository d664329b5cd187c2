"""How a checkpoint is named: a folder on this disk, or a model of the Hub at a revision.

A folder that is there wins over a model of the same name. `./` in front names a folder in any case, and
`hf://` a model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ..errors import InputRefused
from ..text import brief, folder_meant

_PREFIX = "hf://"
_HUB_ID = re.compile(r"(?:hf://)?(\w[\w.-]*(?:/\w[\w.-]*)?)(?:@([\w./-]+))?")


class Model(NamedTuple):
    """A model of the Hub as it was named; `revision` is None for the main branch."""

    repo: str
    revision: str | None


def named(reference: str | Path) -> Path | Model:
    """What a reference names: a folder that is on this disk, or else a model of the Hub.

    Raises:
        InputRefused: no folder of this name is there, and no model can have it.
    """
    text = str(reference)
    try:
        folder = Path(reference).expanduser()
        exists, is_folder, is_file = folder.exists(), folder.is_dir(), folder.is_file()
    except (OSError, RuntimeError, ValueError):  # no path that a file system can hold
        folder, exists, is_folder, is_file = Path(reference), True, False, False
    if is_folder and not text.startswith(_PREFIX):
        return folder
    model = model_named(text)
    if model is not None and (not exists or text.startswith(_PREFIX)):
        return model
    if is_file:
        raise InputRefused(brief(reference), "is a file", "Name the folder it is in.")
    if not exists and (close := folder_meant(folder)):
        raise InputRefused(brief(reference), "there is no such folder", close)
    raise InputRefused(
        brief(reference),
        "is neither a folder nor a Hub id like org/name or org/name@revision",
        "Check the path.",
    )


def model_named(text: str) -> Model | None:
    """The model of the Hub that a text can name; None where no model has such a name."""
    match = _HUB_ID.fullmatch(text)
    return None if match is None or ".." in text else Model(match[1], match[2])


def models_of(reference: str, commit: str | None) -> list[Model]:
    """The models of the Hub that a reference without its last commit names: one, or a model and an
    adapter of it; none where a part of it names none."""
    text = f"{reference}@{commit}" if commit else reference
    found = [model_named(part) for part in text.split("+")]
    return [each for each in found if each] if all(found) else []


def with_adapter(reference: str | Path) -> tuple[str, str] | None:
    """Model and adapter of a reference like `model+adapter`; None where it names one thing.

    A folder whose name has a `+` is one thing. Each part may have a revision of its own. What has a `*`
    is a sum of adapters (`checkpoint.adapter_sums`).
    """
    text = str(reference)
    if "+" not in text or "*" in text or _is_there(text):
        return None
    splits = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == "+"]
    whole = [(model, adapter) for model, adapter in splits if model and adapter]
    there = (each for each in whole if _is_there(each[0]))
    return next(there, whole[0] if whole else None)


def _is_there(text: str) -> bool:
    """Whether a folder of this name is on this disk."""
    try:
        return Path(text).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        return False


def hides_a_model(reference: str | Path) -> bool:
    """Whether a reference is a folder here, and is also spelled like `org/name` of the Hub."""
    text = str(reference)
    if text.startswith(_PREFIX) or "/" not in text or model_named(text) is None:
        return False
    return isinstance(named(reference), Path)
