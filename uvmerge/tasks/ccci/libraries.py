"""Kind `libraries`: signatures of the class path, and names of types that are not there.

A type that neither the project nor the class path holds, as code that is still to be generated, is
named as unknown. A type of the same name in another package never takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...text import brief
from .objects import shown
from .reach import View
from .task import Piece


def pieces(view: View) -> Iterator[Piece]:
    """The types of the class path that are reached, then the unknown ones."""
    for found, distance in view.types.items():
        if found.unit.library:
            yield from shown("libraries", found, distance)
    for distance, lost in view.unknown.values():
        said = f"// unknown type {brief(lost.name)}: not in the project or on the class path"
        yield Piece("libraries", said, lost.file, lost.line, distance, 0, lost.quotes)
