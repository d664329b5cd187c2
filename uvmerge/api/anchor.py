"""`uvmerge anchor`: the leading singular vectors of a base as a file, for a penalty while training.

    uvmerge.anchor_build(base, "anchor.safetensors", top=0.2)
    print(uvmerge.anchor_show("anchor.safetensors"))

The flow: reference → checkpoint → plan → engine → staged file → OUT.
"""

from __future__ import annotations

from typing import Any

from ..operations.options import FILTERS, exclusive
from ..output.places import Reference
from ..recipe.step import RecipeStep
from ..text import expanded
from ..training.anchor_file import AnchorFile
from .anchored import AnchorContents, Anchored
from .anchoring import Build
from .settings import AnchorSettings, shows, split_all


@shows(AnchorSettings, FILTERS)
def anchor_build(
    base: Reference,
    out: Reference,
    *,
    top: float | str | None = None,
    rank: int | None = None,
    energy: float | str | None = None,
    **settings: Any,
) -> Anchored:
    """Write the leading singular vectors of a base's matrices to an anchor file.

    Args:
        base: the checkpoint that training starts from.
        out: the file to write.
        top, rank, energy: at most one of these gives k, the number of leading triplets: as a
            fraction of min(m, n) (by default 0.2), as a count, or as the smallest k with that share
            of the squared singular values. With `energy` each matrix is decomposed twice, unless
            `factors` keeps the decompositions.
        settings: the filters `layers`, `modules`, `include`, `exclude` and `stack` choose matrices,
            as for an operation (by default attention and MLP of the decoder layers);
            docs/options.md lists the other settings.

    Raises:
        InputRefused: the base cannot be read, is quantised, or has no such matrix; OUT is there.
        UsageError: an option is wrong.
        RunFailed: something broke on the way; the same call resumes.
    """
    exclusive(top=top, rank=rank, energy=energy)
    asked = {"top": top, "rank": rank, "energy": energy}
    asked |= {p.name: settings.pop(p.name) for p in FILTERS if p.name in settings}
    chosen, watch = split_all(AnchorSettings, settings)
    step = RecipeStep.parse("restore", asked)
    return Build(base, out, chosen, watch).run(step)


def anchor_show(file: Reference) -> AnchorContents:
    """What an anchor file holds. All of its bytes are read and compared with their hashes.

    Returns:
        `file`, `bytes`, `dtype` (of the factors), `selection`, `version` and `made_with`; and `matrices`, each with
        name, shape, k, `full` (anchored as a whole), dtype of the base, and bytes of the factors.

    Raises:
        InputRefused: the file is truncated, was edited, or is no anchor file.
    """
    found = AnchorFile.open(expanded(file))
    found.verify()
    itemsize = {"BF16": 2, "F32": 4}[found.dtype]
    return AnchorContents({
        "file": found.path.name,
        "bytes": found.size_bytes,
        "dtype": found.dtype,
        "selection": dict(found.selection),
        "version": found.version,
        "made_with": dict(found.made_with),
        "matrices": [
            {
                "name": m.name, "shape": list(m.shape), "k": m.k, "full": m.full, "dtype": m.dtype,
                "bytes": 0 if m.full else m.k * sum(m.shape) * itemsize,
            }
            for m in found.matrices.values()
        ],
    })  # fmt: skip
