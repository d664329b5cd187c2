"""Text as people read and write it: sizes, durations, tables, paths; and untrusted names made inert."""

from __future__ import annotations

import difflib
import html
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import UsageError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def size(count_bytes: float) -> str:
    """`1.5 GB`: bytes in decimal units, three significant figures."""
    value = float(count_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.4g} TB"


def parse_size(text: str | int, option: str = "max-shard-size") -> int:
    """Bytes of `5GB`, `500 MB`, `2GiB` or a plain number, as the Hub's tools write them."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if not match or match[2].upper() not in _UNITS or (isinstance(text, str) and not match[2]):
        raise UsageError(option, f"{text!r} is not a size", "Write it like 5GB or 500MB.")
    count = int(float(match[1]) * _UNITS[match[2].upper()])
    if count < 1:
        raise UsageError(option, f"{text!r} is not a positive size")
    return count


def duration(seconds: float) -> str:
    """`45 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min {rest:02d} s"
    )


def inert(text: object) -> str:
    """`text` with escapes, controls and bidi marks, which a terminal acts on, spelled out."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def as_code(text: object) -> str:
    """`text` as a span of code in Markdown, inert, whatever backticks it holds."""
    shown = inert(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{shown}{space}{fence}"


def brief(text: object, most: int = 120) -> str:
    """`text` inert and cut to `most` characters, for names that may be anything."""
    try:
        shown = inert(str(text)[: most + 1])
    except ValueError:  # an integer of more digits than Python prints
        return "a number of thousands of digits"
    return shown if len(shown) <= most else f"{shown[:most]}…"


def expanded(path: str | Path) -> Path:
    """A path with `~` and `~user` in front written out, as a shell writes them.

    Raises:
        UsageError: there is no such user, so that a folder called `~name` would be made.
    """
    shown = os.path.expanduser(path)
    if str(shown).startswith("~"):
        user = str(shown).partition("/")[0]
        do = f"Write ./{user} for a folder of that name."
        raise UsageError(brief(path), f"{brief(user)} is no user of this machine", do)
    return Path(shown)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is spelled much like `word`; None where none is."""
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1)), None)


def folder_meant(folder: Path) -> str:
    """`Did you mean the folder 'base'?`, where one of much the same name is beside that place."""
    try:
        beside = [path.name for path in folder.parent.iterdir() if path.is_dir()]
    except OSError:
        return ""
    name = closest(folder.name, beside)
    return "" if name is None else f"Did you mean the folder '{brief(folder.with_name(name))}'?"


def as_ranges(numbers: Iterable[int]) -> str:
    """`0-2,5`: whole numbers as an option takes them, runs joined."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def safe(text: object, most: int = 200) -> str:
    """Text from outside, fit for HTML content and for a quoted attribute: inert, cut, escaped."""
    return html.escape(brief(text, most), quote=True)


def two_lines(kind: str, first: str, second: str) -> str:
    """The `repr` of a result, inert and short whatever the names in it are."""
    return f"<{kind} {brief(first, 300)}\n  {brief(second, 300)}>"


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in HTML, for a notebook; all of its texts are escaped."""

    def line(tag: str, cells: Iterable[object]) -> str:
        return f"<tr>{''.join(f'<{tag}>{safe(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', header)}</thead><tbody>{body}</tbody></table>"


def table(header: Sequence[str], rows: Sequence[Sequence[object]], right: str = "") -> str:
    """Columns aligned with two spaces between; `right` names the headers to align right."""
    cells = [[inert(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    flush = [name in right.split() for name in header]

    def line(row: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, flush))
        return "  ".join(padded).rstrip()

    return "\n".join(line(row) for row in cells)
