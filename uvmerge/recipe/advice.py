"""What the study found of edits against interpolation: the file from which advice is given. Pure.

`advice.json` is made by `python -m uvmerge.study.docs` from the results of the study, never by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().with_name("advice.json")


@dataclass(frozen=True)
class Better:
    """An edit that lies above interpolation at equal accuracy in domain.

    Attributes:
        operation: its command.
        options: words of the command line after it.
        seen: where and by how much, in words.
    """

    operation: str
    options: tuple[str, ...]
    seen: str


@dataclass(frozen=True)
class Advice:
    """What the study found.

    Attributes:
        pairs: on how many pairs edits were compared with interpolation.
        better: the edits whose interval over pairs lies above 0 for some kind of pairs and below 0 for
            none, most first.
        recipes: the names of bundled recipes that come first, in this order.
    """

    pairs: int
    better: tuple[Better, ...]
    recipes: tuple[str, ...]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Advice:
        """The advice in the data of the file."""
        better = (
            Better(each["operation"], tuple(each["options"]), each["seen"])
            for each in data["better"]
        )
        return cls(data["pairs"], tuple(better), tuple(data["recipes"]))


@cache
def advice() -> Advice:
    """The advice that comes with uvmerge."""
    return Advice.of(json.loads(FILE.read_bytes()))
