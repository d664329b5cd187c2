"""References to inputs as another process finds them: with commit, by URL, or by absolute path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.adapter_sums import terms_of
from ..hub.references import named, with_adapter
from ..output.places import Reference, is_store, local_folders


def input_folders(references: Iterable[Reference]) -> list[Path]:
    """The local folders of references, those of `model+adapter` one by one."""
    return local_folders([part for each in references for part in with_adapter(each) or (each,)])


def pinned(reference: Reference, identity: Mapping[str, Any]) -> str:
    """A reference that names the same checkpoint from every working directory, also later.

    Args:
        identity: of the checkpoint that the reference named (see `Checkpoint.identity`).
    """
    commit = identity["commit"]
    own = f"{identity['reference']}@{commit}" if commit else identity["reference"]
    if parts := with_adapter(reference):
        model, adapter = parts
        return f"{_part(model, identity['adapter_of'])}+{_part(adapter, own)}"
    if terms := terms_of(reference):
        labels = identity["reference"].split("+")
        texts = [
            f"{_factor(scale)}*{_part(each, label)}" for (scale, each), label in zip(terms, labels)
        ]
        return "+".join(texts)
    if commit:
        return "+".join(f"hf://{part}" for part in own.split("+"))
    return str(reference) if is_store(reference) else _part(reference, own)


def _part(reference: Reference, label: str) -> str:
    """One model or adapter; `label` ends with its commit, if it is on the Hub."""
    found = named(reference)
    if isinstance(found, Path):
        return os.path.abspath(found)
    return f"hf://{found.repo}@{label.rpartition('@')[2]}"


def _factor(scale: float) -> str:
    """A number without the sign that stands between adapters."""
    return repr(scale).replace("e+", "e")
