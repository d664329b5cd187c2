"""What all pages share: the document around their sections. Pure."""

from __future__ import annotations

import base64

from .style import STYLE

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M2 14L14 2M2 14L14 9"'
    ' stroke="#0072B2" stroke-width="2.5"/></svg>'
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


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
