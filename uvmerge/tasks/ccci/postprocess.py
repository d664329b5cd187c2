"""Cuts an answer to what fits the hole.

The steps, in this order: control tokens at its ends go; of an answer with fences the first fenced
block is taken, else lines of talk before the code go; code of the file before the hole that is
repeated goes, and so does repeated code from behind the hole; and what follows the end of the hole's
block, a bracket that closes something which the answer did not open, goes.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from .hole import best_tree, is_error
from .java import METHODS, TYPES, parse, words
from .lexing import PAIRS, tokens

if TYPE_CHECKING:
    from tree_sitter import Node

LEAST = 12
"""Characters without white space that a repetition of the file has at least."""

_FENCE = re.compile(
    r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_CONTROL = re.compile(r"<\|[\w ]{1,30}\|>|<｜[^｜\n]{1,30}｜>|</?s>|<EOT>|<fim[_-]\w+>|<file_sep>")
_TALK = re.compile(r"[A-Z][a-z']*[,.:!]? +[A-Za-z'’]+[,.:!]?( |$)")
_CODE = re.compile(r"[;{}=]|^(//|/\*|\*|@|return\b)")


def cut(answer: str, prefix: str, suffix: str) -> str:
    """The code of an answer that goes into the hole; empty where there is none."""
    code = _without_talk(_CONTROL.split(_begun(answer))[0])
    code = _within_block(_without_prefix(code, prefix), suffix)
    return _without_suffix(code, suffix).rstrip()


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
    text = line.strip()
    return bool(_TALK.match(text)) and len(text.split()) > 2 and not _CODE.search(text)


def _without_prefix(code: str, prefix: str) -> str:
    """The code without the file's text before the hole at its start, white space aside."""
    own, before = tokens(code), [token for token, *_ in tokens(prefix[-20_000:])]
    words_of = [token for token, *_ in own]
    on_line = len(tokens(prefix.rpartition("\n")[2]))
    for count in range(min(len(own), len(before)), 0, -1):
        is_enough = count == on_line or len("".join(words_of[:count])) >= LEAST
        if is_enough and before[-count:] == words_of[:count]:
            return code[own[count - 1][2] :].lstrip(" \t").lstrip("\n")
    return code


def _within_block(code: str, suffix: str) -> str:
    """The code up to the bracket that closes what it did not open; of an expression, up to `;`."""
    is_expression = suffix.lstrip()[:1] in tuple(";),].")
    opened: list[str] = []
    for token, start, _ in tokens(code):
        if token in PAIRS.values():
            opened.append(token)
        elif token in PAIRS:
            if not opened or opened.pop() != PAIRS[token]:
                return code[:start]
        elif token == ";" and is_expression and not opened:
            return code[:start]
    return code


def _without_suffix(code: str, suffix: str) -> str:
    """The code up to where the file's text behind the hole begins again, white space aside.

    At the end of the code any repetition counts, before it one of a statement and `LEAST` characters.
    """
    own, after = tokens(code), [token for token, *_ in tokens(suffix[:20_000])]
    while after and after[0] in PAIRS:
        after.pop(0)
    words_of = [token for token, *_ in own]
    needed = _needed(after)
    for start in range(len(own)):
        rest = words_of[start:]
        begins = start == 0 or words_of[start - 1] in (";", "{", "}")
        at_end = begins and len(rest) > 1 and rest == after[: len(rest)]
        if at_end or (needed and rest[:needed] == after[:needed]):
            return code[: own[start][1]]
    return code


def _needed(after: list[str]) -> int:
    """How many tokens of the suffix make a repetition wherever it stands; 0 for none."""
    length = 0
    for count, token in enumerate(after, 1):
        length += len(token)
        if length >= LEAST and token in (";", "{", "}"):
            return count
    return 0


def fits(code: str, prefix: str, suffix: str) -> bool:
    """Whether the file with the code in it holds the same members as before.

    Types, methods, fields and initialisers are compared that are not wholly inside of the code, so that
    the code may hold a local class, but neither close the method nor open another one; and the file may
    hold no more errors of syntax than with a name in place of the hole.
    """
    before, root = best_tree(prefix, suffix)
    length = len(before) - len(prefix) - len(suffix)
    start = len(prefix.encode())
    was, errors = _members(root, start, start + length)
    now, more = _members(parse(prefix + code + suffix).root_node, start, start + len(code.encode()))
    return was == now and more <= errors


def _members(root: Node, start: int, end: int) -> tuple[Counter[str], int]:
    """Declarations that are not wholly between two bytes, each with those around it; and errors."""
    found: Counter[str] = Counter()
    errors = 0
    left = [(root, "")]
    while left:
        node, outer = left.pop()
        errors += is_error(node)
        declared = _declared(node)
        if declared and not start <= node.start_byte <= node.end_byte <= end:
            outer = f"{outer}/{declared}"
            found[outer] += 1
        left += [(child, outer) for child in node.children]
    return found, errors


def _declared(node: Node) -> str:
    """How a declaration begins; empty for any other node."""
    if node.type in (*TYPES, *METHODS):
        parts = ("type", "name", "type_parameters", "parameters")
        return " ".join([node.type, *(words(node.child_by_field_name(part)) for part in parts)])
    if node.type == "field_declaration":
        names = (n.child_by_field_name("name") for n in node.children_by_field_name("declarator"))
        return " ".join([words(node.child_by_field_name("type")), *map(words, names)])
    in_class = node.parent is not None and node.parent.type == "class_body"
    return node.type if in_class and node.type in ("block", "static_initializer") else ""
