"""`uvmerge check` of an adapter: files, factors, and whether a model has the modules that it changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..checkpoint.adapter import CONFIG, WEIGHTS, Adapter
from ..checkpoint.adapter_targets import merges_of
from ..checkpoint.folder import Checkpoint
from ..errors import UsageError, listed
from ..output import manifest
from .check_files import file_problems


def is_adapter_output(folder: Path) -> bool:
    """Whether uvmerge wrote an adapter into a folder, or what is there is one."""
    names = {path.name for path in folder.iterdir()}
    models = any(name.startswith(("model", "pytorch_model", "config.json")) for name in names)
    return bool(names & {CONFIG, WEIGHTS}) and not models


def adapter_problems(folder: Path, base: Checkpoint | None, report: dict[str, Any]) -> list[str]:
    """Problems of the adapter in a folder; adds what was checked to `report`.

    Args:
        base: the model that the adapter is for, where one is named.

    Raises:
        InputRefused: the adapter is inconsistent, or is not for `base`.
        UsageError: `base` is another input of the run.
    """
    content = manifest.read_checked(folder)
    problems = list(file_problems(folder, content))
    if problems:
        return problems
    if base is not None and content is not None:
        _refuse_other_input(base, content)
    adapter = Adapter.open(folder)
    try:
        entries = adapter.header.entries
        report |= {"tensors": len(entries), "bytes": sum(entry.size_bytes for entry in entries)}
        files = (
            f"{len(content['files'])} files as written" if content else "not checked: no manifest"
        )
        report |= {"hashes": files, "for": adapter.base}
        problems += _values(adapter)
        problems += _ranks(adapter, content)
        if base is not None:
            count = len(merges_of(adapter, base))
            report["fits"] = f"{count} modules of {base.label}"
    finally:
        adapter.source.close()
    return problems


def _refuse_other_input(base: Checkpoint, content: dict[str, Any]) -> None:
    wanted = (
        content["settings"].get("adapter_for") if isinstance(content["settings"], dict) else None
    )
    role = manifest.role_of(base, content)
    if role is not None and wanted is not None and role != wanted:
        what = f"{base.label} is the {role} of this output"
        do = f"--against wants {str(wanted).upper()}, which the adapter is for."
        raise UsageError("--against", what, do)


def _values(adapter: Adapter) -> Iterator[str]:
    """Factors that hold NaN or Inf, or nothing but zeros."""
    import torch

    from ..engine.reading import TORCH_DTYPES

    odd: dict[str, list[str]] = {"NaN or Inf": [], "nothing but zeros": []}
    for entry in adapter.header.entries:
        values = torch.frombuffer(adapter.read(entry), dtype=TORCH_DTYPES[entry.dtype])
        if not bool(values.isfinite().all()):
            odd["NaN or Inf"].append(entry.name)
        elif not bool(values.any()):
            odd["nothing but zeros"].append(entry.name)
    for what, names in odd.items():
        if names:
            yield f"{what} in {listed(names, 'factor')}"


def _ranks(adapter: Adapter, content: dict[str, Any] | None) -> Iterator[str]:
    """Ranks that are not those of the manifest."""
    if content is None:
        return
    planned = {n.removesuffix(".weight"): e.get("rank") for n, e in content["edited"].items()}
    wrong = [
        change.module
        for change in adapter.changes
        if adapter.settings.rank(change.module) != planned.get(change.module)
    ]
    if wrong:
        yield f"other ranks than the manifest says in {listed(wrong, 'module')}"
