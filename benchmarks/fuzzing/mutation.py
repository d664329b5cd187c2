"""Mutants of good files, each determined by a seed, its target and its number."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w.+-]+|\s+|.', re.DOTALL)

# What parsers stumble over: numbers, nesting, text that is none, YAML's marks, names of the formats.
NASTY = [
    b"0", b"1", b"-1", b"2", b"7", b"1.5", b"-0", b"1e999", b"1e-7", b"NaN", b"-Infinity", b"true",
    b"false", b"null", b"18446744073709551616", b"9223372036854775807", b"9" * 40, b"9" * 5000,
    b"0x1f", b"1_000", b"1:30:00", b"2024-01-01", b"~", b".inf", b".nan", b"no", b"20%",
    b"[]", b"{}", b"[[]]", b"[0]", b'["a"]', b'{"a":1,"a":2}', b'{"a":{"a":{"a":{}}}}', b'[null]',
    b"[" * 40, b"[" * 5000, b"[" * 70 + b"]" * 70, b'{"a":' * 70, b"]", b"}", b",", b":", b'"',
    b'""', b'"a"', b'"\\ud800"', b'"\\u0000"', b'"\\u001b[2J"', b'"' + b"x" * 300 + b'"', b"\xff",
    b"\x00", b"\xc3", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"\x1b[31m", b"\t", b"\r\n", b"\n", b"  ",
    b"- ", b"? ", b"&a ", b"*a", b"<<: ", b"|\n", b">\n", b"#", b"%TAG ! a:\n", b"---\n", b"...\n",
    b"!!python/name:os.system ", b"!!binary ", b"!!str ", b"!!set ", b"'", b"@", b"`",
    b'"../a.safetensors"', b'"/a.safetensors"', b'"a/b.safetensors"', b'"__metadata__"',
    b'"weight_map"', b'"F64"', b'"F4"', b'"F32"', b'"model.safetensors"', b'"config.json"',
]  # fmt: skip

_DEEP: Any = json.loads("[" * 80 + "]" * 80)
# What stands in the place of a value, or becomes the name of a key.
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 1.5, -0.0, 1e308, float("nan"), float("inf"), 10**40, 2**63,
    "", "a", "0", "1", "-1", "\ud800", "\x00", "\x1b[2J", "x" * 300, "é\u202e", "float32", "F64",
    "F4", "I8", "model.safetensors", "model-1.safetensors", "../a.safetensors", "config.json",
    "layers", "restore", "top", "base", "all", "attention,mlp", "0-3", "99999999", "20%", "*", "[a",
    [], {}, [[]], [0], [0, 0], [1, 2, 3], ["a"], ["a", 1], [None], {"a": 1}, {"a": {"a": [{}]}},
    {"0": 1}, _DEEP, [1] * 500, {str(i): i for i in range(300)},
]  # fmt: skip
_NAMES = [value for value in _VALUES if isinstance(value, str)]
_TEXTS = [json.dumps(value) for value in _VALUES]  # a list of its own at each place


def altered(structures: Sequence[str], dice: random.Random) -> bytes:
    """One of these JSON texts with one to three changes of its values, keys or elements."""
    data = json.loads(dice.choice(structures))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        places = [place for place in _containers(data) if place]
        if not places:
            break
        _change_place(dice.choice(places), dice)
    return json.dumps(data).encode()


def _containers(data: Any, depth: int = 0) -> Iterator[Any]:
    """Every object and list in `data`, as far as it is not deep."""
    if isinstance(data, (dict, list)) and depth < 20:
        yield data
        for each in data.values() if isinstance(data, dict) else data:
            yield from _containers(each, depth + 1)


def _change_place(place: Any, dice: random.Random) -> None:
    """Change one entry of an object or a list that has some."""
    key = dice.choice(list(place)) if isinstance(place, dict) else dice.randrange(len(place))
    value, kind = json.loads(dice.choice(_TEXTS)), dice.randrange(8)
    if kind < 4:
        place[key] = value
    elif kind == 4:
        del place[key]
    elif kind == 5 and isinstance(place, dict):
        place[dice.choice(_NAMES)] = place.pop(key)
    elif kind == 6 and isinstance(place, dict):
        place[dice.choice(_NAMES)] = value
    elif kind == 7:
        place[key] = [place[key]]
    elif isinstance(place, list):
        place.insert(key, value)


def mutant(seeds: Sequence[bytes], dice: random.Random) -> bytes:
    """One of `seeds` with one to four changes of its tokens or its bytes."""
    seed = dice.choice(seeds)
    count = dice.choice((1, 1, 1, 2, 2, 3, 4))
    if dice.random() < 0.75:
        tokens = list(_tokens(seed))
        for _ in range(count):
            _change_token(tokens, dice, seeds)
        return b"".join(tokens)
    data = bytearray(seed)
    for _ in range(count):
        dice.choice(_BYTE_CHANGES)(data, dice)
    return bytes(data)


@cache
def _tokens(seed: bytes) -> tuple[bytes, ...]:
    return tuple(_TOKEN.findall(seed))


def _change_token(tokens: list[bytes], dice: random.Random, seeds: Sequence[bytes]) -> None:
    """Replace, insert, remove, repeat or swap tokens; or splice in those of another seed."""
    at, kind = dice.randrange(len(tokens) + 1), dice.randrange(8)
    stop = min(len(tokens), at + dice.choice((1, 1, 2, 3, 8, 30)))
    if kind < 3:
        tokens[at : at + 1] = [dice.choice(NASTY)]
    elif kind == 3:
        tokens.insert(at, dice.choice(NASTY))
    elif kind == 4:
        del tokens[at:stop]
    elif kind == 5:
        place = dice.randrange(len(tokens) + 1)
        tokens[place:place] = tokens[at:stop]
    elif kind == 6:
        other = _tokens(dice.choice(seeds))
        start = dice.randrange(len(other) + 1)
        tokens[at:stop] = other[start : start + dice.choice((1, 2, 5, 20))]
    else:
        other_at = dice.randrange(len(tokens) + 1)
        if at < len(tokens) and other_at < len(tokens):
            tokens[at], tokens[other_at] = tokens[other_at], tokens[at]


def _flip(data: bytearray, dice: random.Random) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _insert(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.randbytes(dice.choice((1, 2, 8)))


def _remove(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data) + 1)
    del data[at : at + dice.choice((1, 2, 8, 64))]


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _repeat(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data) + 1)
    piece = bytes(data[at : at + dice.choice((1, 8, 64))])
    data[at:at] = piece * dice.choice((1, 1, 2, 50))


_BYTE_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _insert, _remove, _cut, _repeat,
)  # fmt: skip
