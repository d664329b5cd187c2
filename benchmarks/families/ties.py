"""Which names share one tensor in each architecture: the tables uvmerge/checkpoint/tie_table_N.json.

A family is built with its config's `tie_word_embeddings` true everywhere; what shares memory then
is tied. With the flag false nothing shares any.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .configs import Family, small_config
from .probes import Probes
from .truth import tied

Names = tuple[str, ...]
FLAG = "tie_word_embeddings"


@dataclass(frozen=True)
class Ties:
    """Sets of names of one architecture; `*` is any number, `#` one and the same in all names."""

    names: frozenset[Names]  # tied where the config says so
    always: frozenset[Names]  # tied whatever the config says
    default: bool  # what a config without the flag means

    def __or__(self, other: Ties) -> Ties:
        """The ties of two families of one architecture."""
        default = self.default and other.default
        return Ties(self.names | other.names, self.always | other.always, default)


def ties_of(family: Family) -> Ties:
    """The ties of one family of the installed transformers.

    Both as a model of the installed version saves its names and as its module tree has them: other
    versions save those.
    """
    names, always, plain = (_names(family, flag) for flag in (True, False, None))
    return Ties(names, always, bool(plain - always))


def _names(family: Family, flag: bool | None) -> frozenset[Names]:
    """The tied sets of a family whose config says `flag`, in all of its parts; None: its default."""
    import torch
    import transformers

    config = small_config(family)
    for part in (config, *_parts(config)) if flag is not None else ():
        if hasattr(part, FLAG):
            setattr(part, FLAG, flag)
    torch.manual_seed(0)
    model = getattr(transformers, family.architecture)(config)
    model.tie_weights()
    sets = tied(model, Probes(model))
    both = [names for own in sets for names in (own["saved"], own["names"]) if len(names) > 1]
    return frozenset(map(pattern, both))


def pattern(names: Iterable[str]) -> Names:
    """Names with `*` where their numbers differ and nothing else does, `#` where all agree.

    Numbers that agree in some names alone stay: `lm_heads.4` of Bark is `input_embeds_layers.5`.
    """
    parts = [name.split(".") for name in sorted(names)]
    plain = {tuple("" if word.isdecimal() else word for word in part) for part in parts}
    numbers = {tuple(word for word in part if word.isdecimal()) for part in parts}
    if len(plain) == 1:
        differ = [len(set(words)) > 1 for words in zip(*parts)]
        marks = ["*" if apart else "#" for apart in differ]
        parts = [[m if w.isdecimal() else w for w, m in zip(part, marks)] for part in parts]
    elif len(numbers) == 1:
        parts = [["#" if word.isdecimal() else word for word in part] for part in parts]
    return tuple(dict.fromkeys(".".join(part) for part in parts))


def table(ties: Mapping[str, Ties], version: str) -> dict[str, Any]:
    """The table as JSON data: rows of names and architectures, those of the most first."""
    return {
        "transformers": version,
        "rows": _rows({architecture: own.names for architecture, own in ties.items()}),
        "always": _rows({architecture: own.always for architecture, own in ties.items()}),
        "untied_by_default": sorted(n for n, t in ties.items() if t.names and not t.default),
        "untied": sorted(n for n, t in ties.items() if not t.names),
    }


def _rows(names: Mapping[str, frozenset[Names]]) -> list[dict[str, Any]]:
    owners: dict[Names, list[str]] = defaultdict(list)
    for architecture, own in sorted(names.items()):
        for row in own:
            owners[row].append(architecture)
    order = sorted(owners, key=lambda row: (-len(owners[row]), row))
    return [{"names": list(row), "architectures": owners[row]} for row in order]


def as_text(data: dict[str, Any]) -> str:
    """The table with one line a row."""
    lists = [
        f" {json.dumps(key)}: [\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n ]"
        if isinstance(rows, list) and rows
        else f" {json.dumps(key)}: {json.dumps(rows)}"
        for key, rows in data.items()
    ]
    return "{\n" + ",\n".join(lists) + "\n}\n"


def _parts(config: Any) -> list[Any]:
    """The configurations inside a configuration, at any depth."""
    inside = [value for value in vars(config).values() if hasattr(value, "to_diff_dict")]
    return inside + [deeper for part in inside for deeper in _parts(part)]
