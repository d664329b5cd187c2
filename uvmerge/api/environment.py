"""What is not the same in the environment of a run and in this one, by how much it matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import counted
from ..output.manifest import versions
from ..text import inert

HARMLESS, MAY_DIFFER = "harmless", "may differ"
# Python reads and writes; the other packages compute what is stored.
_SEVERITY = {"python": HARMLESS}


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        severity: `harmless`, or `may differ` where stored bytes can depend on it.
    """

    what: str
    then: str
    now: str
    severity: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.what} {inert(self.then)} then, {inert(self.now)} now"

    def as_data(self) -> dict[str, str]:
        """The difference as JSON-able data."""
        return {"what": self.what, "then": self.then, "now": self.now, "severity": self.severity}


def differences(content: Mapping[str, Any]) -> list[Difference]:
    """Versions and device of a manifest that are others here."""
    then, now = content.get("versions"), versions()
    known = then if isinstance(then, dict) else {}
    rows = [(name, str(known.get(name, "not told")), version) for name, version in now.items()]
    found = [
        Difference(name, old, new, _SEVERITY.get(name, MAY_DIFFER))
        for name, old, new in rows
        if old != new
    ]
    device = str(content["settings"].get("device", "none"))
    if device.startswith("cuda"):
        found.append(Difference("device", device, "whichever is here", MAY_DIFFER))
    return found


def rungs(content: Mapping[str, Any], edits: Mapping[str, Any]) -> list[Difference]:
    """Matrices that another method decomposed here than in the run of a manifest."""
    edited = content["edited"]
    others = [
        (each.get("method"), edits[label].get("method"))
        for label, each in edited.items()
        if label in edits and each.get("method") != edits[label].get("method")
    ]
    if not others:
        return []
    then, now = (", ".join(map(str, each or ["none"])) for each in others[0])
    what = f"method of {counted(len(others), 'matrix')}, the first"
    return [Difference(what, then, now, MAY_DIFFER)]
