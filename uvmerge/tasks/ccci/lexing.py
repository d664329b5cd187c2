"""Tokens of Java, and what is open at the end of a text; for text that no parser has to accept."""

from __future__ import annotations

import re

PAIRS = {")": "(", "]": "[", "}": "{"}
"""Each closing bracket with the one that opens it."""

_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?(?:\*/|\Z)|"""(?:\\.|[^\\])*?(?:"""|\Z)|"(?:\\.|[^"\\\n])*"?|\'(?:\\.|[^\'\\\n])*\'?'
    r"|[(){}\[\]]|[^\s\w]|\w+",
    re.DOTALL,
)


def tokens(text: str) -> list[tuple[str, int, int]]:
    """Each token with its start and end; strings and comments are one token, also if left open."""
    return [(found[0], found.start(), found.end()) for found in _TOKEN.finditer(text)]


def opened(text: str) -> tuple[str, str]:
    """What ends the string or comment that a text leaves open, and what closes its brackets."""
    found = [token for token, *_ in tokens(text)]
    closing = {opening: close for close, opening in PAIRS.items()}
    stack: list[str] = []
    for token in found:
        if token in closing:
            stack.append(closing[token])
        elif token in PAIRS and token in stack:
            while stack.pop() != token:
                pass
    last = found[-1] if found else ""
    quote = last[:1] if last[:1] in ('"', "'") and (len(last) == 1 or last[-1] != last[0]) else ""
    is_comment = last.startswith("/*") and not last.endswith("*/")
    end = "*/" if is_comment else f"{quote};" if quote else ""
    return end, "".join(reversed(stack))
