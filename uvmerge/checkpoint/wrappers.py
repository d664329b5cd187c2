"""Names changed by a wrapper: `_orig_mod.` of torch.compile, `module.` of DDP and others. Pure.

No loader knows such names; it would initialise the model at random. uvmerge reads and writes the
tensors under their plain names.
"""

from __future__ import annotations

from collections.abc import Collection

_ANYWHERE = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
_IN_FRONT = {"module": "DistributedDataParallel or DeepSpeed", "_forward_module": "Lightning"}


def unwrapped(names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """(plain name of each name that a wrapper has changed, what the wrappers are called).

    A wrapper in front counts only where every name begins with it. Where two names would become
    one, no name is changed.
    """
    plain = {name: name for name in names}
    found: dict[str, None] = {}
    while names and (front := _common_front(plain.values())):
        found[f"{front}. of {_IN_FRONT[front]}"] = None
        plain = {name: short[len(front) + 1 :] for name, short in plain.items()}
    for segment, tool in _ANYWHERE.items():
        if f"{segment}." in "\n".join(plain.values()):
            found[f"{segment}. of {tool}"] = None
            plain = {name: _without(short, segment) for name, short in plain.items()}
    changed = {name: short for name, short in plain.items() if name != short}
    if len(set(plain.values())) < len(plain) or "" in plain.values():
        return {}, []
    return changed, list(found)


def _common_front(names: Collection[str]) -> str | None:
    """The wrapper's segment with which every name begins."""
    first = next(iter(names)).partition(".")[0]
    is_wrapper = first in _IN_FRONT and all(name.startswith(f"{first}.") for name in names)
    return first if is_wrapper else None


def _without(name: str, segment: str) -> str:
    return ".".join(part for part in name.split(".") if part != segment)
