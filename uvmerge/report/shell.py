"""What all pages share: the document around their sections, and tables. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from .style import STYLE

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M2 14L14 2M2 14L14 9"'
    ' stroke="#0072B2" stroke-width="2.5"/></svg>'
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_NAME = ' class="name"'


def whole_page(title: str, body: str) -> str:
    """One self-contained document; `title` and `body` are HTML already."""
    icon = base64.b64encode(_ICON.encode()).decode()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="referrer" content="no-referrer"><title>{title}</title>'
        f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "wide") -> str:
    """A table in HTML; the texts of its cells are HTML already."""
    head = "".join(f"<th>{name}</th>" for name in header)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_NAME if i == 0 else ''}>{c}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    body = body.replace(" %", "&nbsp;%")
    return f'<div class="scroll"><table class="{kind}"><tr>{head}</tr>{body}</table></div>'
