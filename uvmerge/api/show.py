"""`uvmerge show`: what is in a checkpoint, from headers alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..checkpoint.anatomy import Anatomy, anatomy_of
from ..checkpoint.folder import Tensor
from ..checkpoint.quantisation import quantisation
from ..checkpoint.stacks import layer_counts, one_name, template
from ..checkpoint.ties import equal_tensors, is_tied
from ..errors import counted
from ..hub.ranged import owner_of
from ..output.places import Reference
from ..text import html_table, inert, safe, size, table, two_lines
from .heap import collected_later
from .opening import open_checkpoint
from .settings import OpenSettings, shows

UNREAD = "weights on {} were not read: tensors that hold the same values are not looked for"


class Contents(dict[str, Any]):
    """What `show` returns: JSON-able data that shows itself in a terminal and in a notebook."""

    def __repr__(self) -> str:
        of = f"{self['reference']}: {self['parameters']:,} parameters, {self['layers']} layers"
        return two_lines("Contents", of, f"keys {', '.join(self)}; print() gives the table")

    def __str__(self) -> str:
        return as_table(self)

    def _repr_html_(self) -> str:
        head = f"{self['reference']}: {self['parameters']:,} parameters, {size(self['bytes'])}"
        return f"<p>{safe(head)}</p>{html_table(_HEADER, _rows(self))}"


@shows(OpenSettings, watched=False)
def show(checkpoint: Reference, **settings: Any) -> Contents:
    """What a checkpoint holds, as JSON-able data.

    Args:
        settings: `allow_pickle`, as in docs/options.md.

    Returns:
        `reference`, `commit`, `files`, `bytes`, `parameters`, `layers`, `dtypes`, `tied`,
        `quantised` and `notes`; `stacks`, with name, depth, kind and whether operations work on the
        stack by default; `same`, groups of names that hold one tensor; `left_alone`, tensors of
        layers that are neither matrix nor norm; and `tensors`, with dtype, shape, stack, layer,
        module and number of matrices.

    Raises:
        InputRefused: the checkpoint cannot be read.
    """
    given = OpenSettings.read(settings)
    with (
        collected_later(),
        open_checkpoint(checkpoint, given, whole=False, by_ranges=True) as opened,
    ):
        anatomy = anatomy_of(opened)
        tensors = [_tensor(anatomy, tensor) for tensor in opened.tensors.values()]
        quantised = quantisation(opened)
        return Contents({
            "reference": opened.label,
            "commit": opened.commit,
            "files": len(opened.headers),
            "bytes": opened.size_bytes,
            "parameters": sum(math.prod(tensor.shape) for tensor in opened.tensors.values()),
            "layers": anatomy.depth,
            "stacks": [
                {"name": s.name, "depth": s.depth, "kind": s.kind, "default": s in anatomy.main}
                for s in anatomy.stacks.all
            ],
            "dtypes": dict(Counter(entry["dtype"] for entry in tensors)),
            "tied": is_tied(anatomy),
            "same": [] if opened.is_remote else equal_tensors(opened, anatomy),
            "quantised": quantised.method if quantised.packed else None,
            "left_alone": [tensor.name for tensor in anatomy.non_matrices()],
            "notes": opened.notes + anatomy.notes + ([UNREAD.format(owner_of(opened.sources.values()))] if opened.is_remote else []),
            "tensors": tensors,
        })  # fmt: skip


def _tensor(anatomy: Anatomy, tensor: Tensor) -> dict[str, Any]:
    place = anatomy.place(tensor)
    return {
        "name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape),
        "stack": place.stack, "layer": place.layer, "module": place.module,
        "matrices": len(anatomy.views(tensor)) if place.is_matrix else 0,
        "bytes": tensor.size_bytes, "file": tensor.file,
    }  # fmt: skip


def as_table(content: dict[str, Any]) -> str:
    """The data of `show` for people: totals, then tensors; layers and experts share a line."""
    dtypes = ", ".join(f"{dtype} {count:,}" for dtype, count in content["dtypes"].items())
    layers = layer_counts(each["depth"] for each in content["stacks"] if each["default"])
    lines = [
        f"{content['reference']}: {content['parameters']:,} parameters, {size(content['bytes'])} in"
        f" {counted(content['files'], 'file')}, {layers}, tensors: {dtypes}",
        *_stack_lines(content["stacks"]),
        *(["output head tied to the embeddings"] if content["tied"] else []),
        *(f"one tensor under several names: {', '.join(names)}" for names in content["same"]),
        *([f"quantised: {content['quantised']}"] if content["quantised"] else []),
        *([f"left alone in layers: {_kinds_left_alone(content)}"] if content["left_alone"] else []),
        *(f"note: {note}" for note in content["notes"]),
    ]
    body = table(_HEADER, _rows(content), right="count matrices")
    return "\n".join(map(inert, lines)) + "\n" + body


_HEADER = ("tensor", "dtype", "shape", "module", "count", "matrices")


def _rows(content: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """The lines of the table: one name in all layers, with all experts, is one line."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in content["tensors"]:
        name = entry["name"]
        if entry["layer"] is not None:
            name = one_name(name, entry["layer"])
        shape = " × ".join(map(str, entry["shape"])) or "scalar"
        groups.setdefault((name, entry["dtype"], shape, entry["module"]), []).append(entry)
    return [
        (name, dtype, shape, module, len(group), sum(e["matrices"] for e in group) or "")
        for (name, dtype, shape, module), group in groups.items()
    ]


def _stack_lines(stacks: list[dict[str, Any]]) -> list[str]:
    """A line for each stack, where there are several; says which need `--stack`."""
    lines = [
        f"{stack['name']} ({counted(stack['depth'], stack['kind'] + ' layer')})"
        f"{'' if stack['default'] else ': only with --stack'}"
        for stack in stacks
    ]
    return [f"stack {line}" for line in lines] if len(stacks) > 1 else []


def _kinds_left_alone(content: dict[str, Any]) -> str:
    """How many tensors of each name and shape are left alone in layers."""
    shapes = {entry["name"]: " × ".join(map(str, entry["shape"])) for entry in content["tensors"]}
    kinds = Counter((template(name), shapes[name]) for name in content["left_alone"])
    return ", ".join(f"{count:,} of {name} ({shape})" for (name, shape), count in kinds.items())
