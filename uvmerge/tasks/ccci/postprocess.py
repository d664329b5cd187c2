"""Cuts an answer to what fits the hole.

The steps, in this order: control tokens at its ends go; of an answer with fences the first fenced
block is taken, else lines of talk before the code go; code of the file before the hole that is
repeated goes, and so does repeated code from behind the hole; and what follows the end of the hole's
block, a bracket that closes something which the answer did not open, goes.
"""

from __future__ import annotations

import re
from collections import Counter

from .java import METHODS, TYPES, parse, words

LEAST = 12
"""Characters without white space that a repetition of the file has at least."""

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_CONTROL = re.compile(r"<\|[\w ]{1,30}\|>|<｜[^｜\n]{1,30}｜>|</?s>|<EOT>|<fim[_-]\w+>|<file_sep>")
_TALK = re.compile(r"^[A-Z][\w',\- ]*( [\w'`.,()/*\-]+){2,}[.:!]?$")
_CODE = re.compile(r"[;{}=]|\w\(|^\s*(//|/\*|\*|@|return\b)")
_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?(?:\*/|\Z)|"""(?:\\.|[^\\])*?(?:"""|\Z)|"(?:\\.|[^"\\\n])*"?|\'(?:\\.|[^\'\\\n])*\'?'
    r"|[(){}\[\]]|[^\s\w]|\w+",
    re.DOTALL,
)
_PAIRS = {")": "(", "]": "[", "}": "{"}


def cut(answer: str, prefix: str, suffix: str) -> str:
    """The code of an answer that goes into the hole; empty where there is none."""
    code = _without_talk(_CONTROL.split(_begun(answer))[0])
    code = _without_prefix(code, prefix)
    code = _without_suffix(code, suffix)
    return _within_block(code).rstrip()


def _begun(answer: str) -> str:
    """The answer without control tokens in front."""
    while (found := _CONTROL.match(answer.lstrip())) is not None:
        answer = answer.lstrip()[found.end() :]
    return answer


def _without_talk(answer: str) -> str:
    """The first fenced block; without fences, the answer less the lines of talk around the code."""
    fenced = _FENCE.search(answer)
    if fenced is not None:
        return fenced[2].strip("\n")
    lines = answer.strip("\n").split("\n")
    while lines and _is_talk(lines[0]):
        lines.pop(0)
        while lines and not lines[0].strip():
            lines.pop(0)
    end = next((n for n, line in enumerate(lines) if n and _is_talk(line)), len(lines))
    text = "\n".join(lines[:end])
    single = re.fullmatch(r"\s*`([^`]+)`\s*", text)
    return single[1] if single is not None else text


def _is_talk(line: str) -> bool:
    return bool(_TALK.match(line.strip())) and not _CODE.search(line)


def _tokens(text: str) -> list[tuple[str, int, int]]:
    return [(found[0], found.start(), found.end()) for found in _TOKEN.finditer(text)]


def _without_prefix(code: str, prefix: str) -> str:
    """The code without the file's text before the hole at its start, white space aside."""
    own, before = _tokens(code), [token for token, *_ in _tokens(prefix[-20_000:])]
    words_of = [token for token, *_ in own]
    for count in range(min(len(own), len(before)), 0, -1):
        repeated = before[-count:] == words_of[:count]
        if repeated and len("".join(words_of[:count])) >= LEAST:
            return code[own[count - 1][2] :].lstrip(" \t").lstrip("\n")
    return code


def _without_suffix(code: str, suffix: str) -> str:
    """The code up to where the file's text behind the hole begins again, white space aside."""
    own, after = _tokens(code), [token for token, *_ in _tokens(suffix[:20_000])]
    while after and after[0] in (";", ")", "}"):
        after.pop(0)
    words_of = [token for token, *_ in own]
    needed = _needed(after)
    for start in range(len(own) if needed else 0):
        if words_of[start : start + needed] == after[:needed]:
            return code[: own[start][1]]
    return code


def _needed(after: list[str]) -> int:
    """How many tokens of the suffix make a repetition: a whole statement, and `LEAST` characters."""
    length = 0
    for count, token in enumerate(after, 1):
        length += len(token)
        if length >= LEAST and token in (";", "{", "}"):
            return count
    return 0


def _within_block(code: str) -> str:
    """The code up to the bracket that closes what it did not open."""
    opened: list[str] = []
    for token, start, _ in _tokens(code):
        if token in _PAIRS.values():
            opened.append(token)
        elif token in _PAIRS:
            if not opened or opened.pop() != _PAIRS[token]:
                return code[:start]
    return code


def members(text: str) -> Counter[str] | None:
    """Types, methods and fields of a file with their places; None where the file is broken."""
    root = parse(text).root_node
    if root.has_error:
        return None
    found: Counter[str] = Counter()
    left = [(root, "")]
    while left:
        node, outer = left.pop()
        named = node.type in (*TYPES, *METHODS) or node.type == "field_declaration"
        if named:
            head = node.text or b""
            body = node.child_by_field_name("body")
            if body is not None:
                head = head[: body.start_byte - node.start_byte]
            outer = f"{outer}/{' '.join(head.decode().split())}"
            found[outer] += 1
        if node.type == "static_initializer" or (
            node.type == "block" and node.parent is not None and node.parent.type == "class_body"
        ):
            found[f"{outer}/{{}}"] += 1
        left += [(child, outer) for child in node.children]
    return found


def fits(code: str, prefix: str, suffix: str) -> bool:
    """Whether the file with the code in it is Java, with the same members as without.

    A class, method or field that the code brings, and one that it closes early, are differences; types
    without a name and local classes inside of the code are none... 
    """
    raise NotImplementedError
