"""A mixture of experts as the checkpoint that is put together of a run's inputs, here and by workers.

The rows of the routers are computed once, where the plan is made: workers need neither the prompts' tokens
nor a forward pass, and all of them have the same numbers.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xxhash

from ..checkpoint.composed import ComposedCheckpoint
from ..checkpoint.folder import Checkpoint
from ..checkpoint.mixture import Member, layout_of, mixture, routers_of
from ..plan import file as plans
from ..recipe.file import as_text
from ..recipe.mixture import Mixture

if TYPE_CHECKING:
    from torch import Tensor

MIRRORED = "models[0]"  # the role of the mixture in its plan


@dataclass(frozen=True)
class Mixed:
    """How the inputs of a run become a mixture.

    Attributes:
        asked: what is asked for; its models are roles of the run.
        rows: of the routers (experts, layers, width) in float64, that of a shared expert last; None
            in a dry run, which computes none.
        is_wide: whether routers are stored in float32, rather than as the base stores its own tensors.
    """

    asked: Mixture
    rows: Tensor | None = field(repr=False)
    is_wide: bool

    def checkpoint(self, inputs: Mapping[str, Checkpoint]) -> ComposedCheckpoint:
        """The mixture of these inputs.

        Raises:
            InputRefused: they do not fit together.
        """
        asked, base = self.asked, inputs[self.asked.base]
        layout = layout_of(base, asked.layout)
        about: dict[str, Any] = {"experts": [inputs[e.model].identity() for e in asked.all]}
        if self.rows is not None:
            about["routers"] = xxhash.xxh3_128_hexdigest(self.rows.numpy().tobytes())
        made = _Routers(routers_of(base, layout), self.rows)
        *members, last = (Member(inputs[e.model], e.scale) for e in asked.all)
        return mixture(
            base,
            layout,
            members if asked.shared else [*members, last],
            last if asked.shared else None,
            router=made.bytes,
            router_dtype="F32" if self.is_wide else None,
            per_token=asked.per_token,
            about=about,
        )

    def as_data(self) -> dict[str, Any]:
        """The mixture as data for a plan file."""
        assert self.rows is not None
        rows = b64encode(self.rows.numpy().tobytes()).decode("ascii")
        return {
            "asked": self.asked.as_data(), "shape": [*self.rows.shape], "rows": rows,
            "is_wide": self.is_wide,
        }  # fmt: skip

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Mixed:
        """The inverse of `as_data`.

        Raises:
            Misfit: it is other data.
            UsageError: what is asked for cannot be read.
        """
        import torch

        asked = Mixture.parse(as_text(plans.mapping(data.get("asked"))))
        shape = plans.read_as(tuple[int, int, int], data.get("shape"))
        raw = plans.read_as(bytes, data.get("rows"))
        wide = plans.read_as(bool, data.get("is_wide"))
        if min(shape) < 1 or len(raw) != 8 * shape[0] * shape[1] * shape[2]:
            raise plans.Misfit("its routers are of another size")
        rows = torch.frombuffer(bytearray(raw), dtype=torch.float64).view(shape)
        return cls(asked, rows, wide)


class _Routers:
    """The bytes of routers, by name.

    Args:
        names: of the routers, by layer.
        rows: (experts, layers, width); None in a dry run, which reads none.
    """

    def __init__(self, names: Sequence[str], rows: Tensor | None) -> None:
        self._layers = {name.rpartition(".gate.")[0]: i for i, name in enumerate(names)}
        self._rows = rows

    def bytes(self, name: str, count: int, dtype: str) -> bytes:
        """The first `count` rows of a router in a dtype, or the last one for a shared expert."""
        from ..engine.reading import TORCH_DTYPES, as_bytes as raw

        assert self._rows is not None
        block, is_shared, _ = name.partition(".shared_expert_gate")
        layer = self._layers[block if is_shared else name.rpartition(".gate.")[0]]
        rows = self._rows[-1:] if is_shared else self._rows[:count]
        return bytes(raw(rows[:, layer].to(TORCH_DTYPES[dtype])))
