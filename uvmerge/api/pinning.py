"""References as any machine finds them."""

from __future__ import annotations

import os
from pathlib import Path

from ..checkpoint.adapter_sums import terms_of
from ..hub.references import named, with_adapter
from ..output.places import Reference, is_store


def pinned(reference: Reference, label: str, commit: str | None) -> str:
    """A checkpoint that was opened, as any machine finds it: with its commit, by URL, or by its absolute path.

    Of a model with an adapter, or of a sum of adapters, each part is so, without a commit.

    Args:
        label, commit: of the checkpoint.
    """
    if terms := terms_of(reference):
        return "+".join(f"{scale!r}*{_found(part)}" for scale, part in terms)
    if parts := with_adapter(reference):
        return "+".join(map(_found, parts))
    return f"hf://{label}@{commit}" if commit else _found(reference)


def _found(reference: Reference) -> str:
    if is_store(reference):
        return str(reference)
    found = named(reference)
    if isinstance(found, Path):
        return os.path.abspath(found)
    revision = f"@{found.revision}" if found.revision else ""
    return f"hf://{found.repo}{revision}"
