"""The model card of an output as it is pushed: with Hub ids, in a part of its own of a card that is there.

What other people wrote in a card stays as it is. The part of uvmerge lies between two marks and is
replaced by the next push.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import yaml

from ..text import as_code
from .card import UNKNOWN, said

BEGIN, END = "<!-- begin of what uvmerge wrote -->", "<!-- end of what uvmerge wrote -->"
_FRONT = re.compile(r"\s*---\n(.*?\n)---\n", re.DOTALL)
_CHUNK = re.compile(r"^([\w-]+):.*\n(?:[ \t-].*\n)*", re.MULTILINE)
_OURS = ("base_model", "base_model_relation")
_MOST_TAGS = 60


def shared_card(
    own: bytes,
    existing: bytes | None,
    repo: str,
    ids: Sequence[tuple[str, str]],
    missing: Sequence[str],
    adapter_for: str | None = None,
    is_merge: bool = False,
) -> bytes:
    """The card to push.

    Args:
        own: the card in the folder of the output.
        existing: the card that is at the Hub already.
        ids: the label of each input in `own` and its Hub id; the mirrored input first.
        missing: why nobody else can make the output again.
        adapter_for: of an adapter, the label of the model that it is for.
        is_merge: whether an operation on several models made the output, were it given one.
    """
    front, body = _split(own.decode())
    parents = [each for each in ids if adapter_for in (None, each[0])]
    known = list(dict.fromkeys(hub_id for _, hub_id in parents))
    relation = "adapter" if adapter_for else "merge" if is_merge or len(known) > 1 else "finetune"
    inputs = _dumped({"base_model": known, "base_model_relation": relation}) if known else ""
    part = f"{BEGIN}\n{_body(body, repo, ids, missing)}\n{END}\n"
    theirs, text = _split((existing or b"").decode(errors="replace").replace("\r\n", "\n"))
    before, begin, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if begin else ""
    text = f"{before.rstrip()}\n\n{part}{after.lstrip(chr(10))}".lstrip()
    return f"---\n{inputs}{_merged(front, theirs)}---\n\n{text}".encode()


def _split(card: str) -> tuple[str, str]:
    """The metadata of a card as YAML, and its text."""
    front = _FRONT.match(card)
    return (front[1], card[front.end() :]) if front else ("", card)


def _without(front: str, keys: Sequence[str]) -> str:
    return _CHUNK.sub(lambda chunk: "" if chunk[1] in keys else chunk[0], front)


def _merged(ours: str, theirs: str) -> str:
    """Metadata of a card that is there, with our tags and what it lacks; its other keys stay."""
    tags = [each for front in (theirs, ours) for each in _tags(front)]
    replaced = (*_OURS, "tags")
    there = {chunk[1] for chunk in _CHUNK.finditer(theirs)}
    kept, added = _without(theirs, replaced), _without(ours, (*there, *replaced))
    return kept + added + _dumped({"tags": list(dict.fromkeys(tags))[:_MOST_TAGS]})


def _tags(front: str) -> list[str]:
    found = said(front.encode(), "tags") or []
    return [found] if isinstance(found, str) else found


def _dumped(data: Mapping[str, object]) -> str:
    return str(yaml.safe_dump(dict(data), sort_keys=False))


def _body(body: str, repo: str, ids: Sequence[tuple[str, str]], missing: Sequence[str]) -> str:
    """The text of our card, which names inputs by their Hub ids, and how to make it again."""
    title = f"# {as_code(repo)}"
    lines = [line for line in body.strip().splitlines() if not line.endswith(UNKNOWN)]
    lines = [title if line.startswith("# ") and i == 0 else line for i, line in enumerate(lines)]
    text = "\n".join(lines).strip()
    labels = [label for label, _ in ids]
    for label, hub_id in (each for each in ids if labels.count(each[0]) == 1):
        text = text.replace(as_code(label), as_code(hub_id))
        text = re.sub(rf"(?<=[ ]){re.escape(label)}(?= |$)", hub_id, text, flags=re.MULTILINE)
    if missing:
        return f"{text}\n\n{'. '.join(missing)}."
    return (
        f"{text}\n\nMake it again and compare every file:\n\n```sh\nuvmerge reproduce {repo}\n```"
    )
