"""`uvmerge show`: what is in a checkpoint, from headers alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..checkpoint.anatomy import Anatomy
from ..checkpoint.quantisation import quantisation
from ..output.places import Reference
from ..text import inert, size, table
from .opening import open_checkpoint
from .settings import OpenSettings, shows


@shows(OpenSettings, watched=False)
def show(checkpoint: Reference, **settings: Any) -> dict[str, Any]:
    """What a checkpoint holds, as JSON-able data.

    Args:
        settings: `allow_pickle`, as in docs/options.md.

    Returns:
        reference, commit, files, bytes, parameters, layers, dtypes, tied, quantised, notes, and a
        list of tensors with dtype, shape, layer, module and the number of matrices in each.
    """
    with open_checkpoint(checkpoint, OpenSettings.read(settings)) as opened:
        anatomy = Anatomy(opened)
        tensors, parameters = [], 0
        for tensor in opened.tensors.values():
            place = anatomy.place(tensor)
            matrices = len(anatomy.views(tensor)) if place.is_matrix else 0
            count = 1
            for length in tensor.shape:
                count *= length
            parameters += count
            tensors.append({
                "name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape),
                "layer": place.layer, "module": place.module, "matrices": matrices,
                "bytes": tensor.size_bytes, "file": tensor.file,
            })  # fmt: skip
        modules = {entry["module"] for entry in tensors}
        quantised = quantisation(opened)
        return {
            "reference": opened.label,
            "commit": opened.commit,
            "files": len(opened.headers),
            "bytes": opened.size_bytes,
            "parameters": parameters,
            "layers": anatomy.depth,
            "dtypes": dict(Counter(entry["dtype"] for entry in tensors)),
            "tied": "embeddings" in modules and "head" not in modules,
            "quantised": quantised[0] if quantised else None,
            "notes": opened.notes + anatomy.notes,
            "tensors": tensors,
        }


def as_table(content: dict[str, Any]) -> str:
    """`show`'s data for people: totals, then tensors with the layers of one name on one line."""
    dtypes = ", ".join(f"{dtype} {count:,}" for dtype, count in content["dtypes"].items())
    lines = [
        f"{content['reference']}: {content['parameters']:,} parameters, {size(content['bytes'])} in"
        f" {content['files']} file(s), {content['layers']} layers, tensors: {dtypes}",
        *(["output head tied to the embeddings"] if content["tied"] else []),
        *([f"quantised: {content['quantised']}"] if content["quantised"] else []),
        *(f"note: {note}" for note in content["notes"]),
    ]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in content["tensors"]:
        name = entry["name"]
        if entry["layer"] is not None:
            name = name.replace(f".{entry['layer']}.", ".*.", 1)
        shape = " × ".join(map(str, entry["shape"])) or "scalar"
        groups.setdefault((name, entry["dtype"], shape, entry["module"]), []).append(entry)
    rows = [
        (name, dtype, shape, module, len(group), sum(e["matrices"] for e in group) or "")
        for (name, dtype, shape, module), group in groups.items()
    ]
    header = ("tensor", "dtype", "shape", "module", "count", "matrices")
    return "\n".join(map(inert, lines)) + "\n" + table(header, rows, right="count matrices")
