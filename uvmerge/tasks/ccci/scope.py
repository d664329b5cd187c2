"""Kind `scope`: the method, what the hole is, and the variables that the code may use there."""

from __future__ import annotations

from collections.abc import Iterator

from ...text import brief
from .objects import signature
from .reach import View
from .task import Piece


def pieces(view: View) -> Iterator[Piece]:
    """The method, the hole, then a piece for each variable, the nearest first."""
    site, typing = view.typing.site, view.typing
    file = site.unit.file
    said = f"// method of {site.type.name}: {signature(site.method)}"
    yield Piece("scope", said, file, site.method.line, 0, 0, site.method.name)
    what, typed, use = typing.expected()
    kind = f" of type {brief(typed.text)}" if typed is not None else ""
    said = f"// hole: {what}{kind}{f' for {use}' if use else ''}"
    yield Piece("scope", said, file, site.line, 0, 0)
    for variable in view.variables:
        known = typing.type_of_variable(variable)
        shown = known.text if known is not None else variable.type or "?"
        said = f"{shown} {variable.name}; // {variable.origin}"
        source = variable.owner.unit.file if variable.owner is not None else file
        yield Piece("scope", said, source, variable.line, 0, 0, variable.name)
