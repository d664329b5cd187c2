"""The machine on which a pair is measured, and the versions of what measures it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from .. import __version__

MEASURING = ("torch", "transformers")
"""Packages whose versions must be the same for all that is measured on one pair."""
_OTHERS = ("peft", "numpy")


def versions(names: tuple[str, ...] = MEASURING) -> dict[str, str]:
    """The versions of installed packages, by name."""
    return {name: metadata.version(name) for name in names}


def described() -> dict[str, str]:
    """The machine that this process runs on, and the versions of what it runs, each in words."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "uvmerge": __version__,
        "python": platform.python_version(),
        **versions((*MEASURING, *_OTHERS)),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line[:10] == "model name")
    except (OSError, StopIteration):
        return platform.processor() or "not known"
