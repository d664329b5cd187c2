"""Rotation-preserving fine-tuning: the leading directions of a base as a penalty while training.

from uvmerge.training import RotationAnchor

anchor = RotationAnchor.load("anchor.safetensors", strength=1.0)
trainer = SFTTrainer(..., callbacks=[anchor.callback()])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .anchor import RotationAnchor as RotationAnchor
    from .l2 import StartAnchor as StartAnchor
    from .losses import ImportanceWeightedLoss as ImportanceWeightedLoss, KLLoss as KLLoss

_LAZY = {
    "ImportanceWeightedLoss": "losses",
    "KLLoss": "losses",
    "RotationAnchor": "anchor",
    "StartAnchor": "l2",
}

__all__ = ["ImportanceWeightedLoss", "KLLoss", "RotationAnchor", "StartAnchor"]


def __getattr__(name: str) -> Any:
    """Import a public name, and with it torch, on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
