"""In which situation a comparison leaves its reader: what can be repaired, and where. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from . import judgement
from .findings import Compared, with_measures

UNRELATED, IDENTICAL, BROKEN = "unrelated", "identical", "broken"
EDITED, NO_MATRIX, ROUNDING = "edited", "no matrix", "rounding"
FEW_LAYERS, EVERYWHERE = "few layers", "everywhere"


@dataclass(frozen=True)
class Situation:
    """What was found of one checkpoint, as far as it decides what to do next.

    Attributes:
        kind: `unrelated`; `identical`; `broken`, where matrices hold NaN or Inf; `edited`, where
            uvmerge made the checkpoint; `no matrix`, where no matrix moved, but other tensors may have; `rounding`, where no matrix moved more than
            storing it explains; `few layers`; or `everywhere`.
        layers: the layers that hold most of the change, ascending; only of `few layers`.
        share: the share of the change's energy in `layers`; else 1.
        depth: number of layers with a matrix that was compared.
    """

    kind: str
    layers: tuple[int, ...] = ()
    share: float = 1.0
    depth: int = 0


def situation(compared: Compared) -> Situation:
    """The situation of one checkpoint that was compared with its base."""
    if compared.verdict in (UNRELATED, IDENTICAL):
        return Situation(compared.verdict)
    if any(entry.state == "nonfinite" for entry in compared.entries):
        return Situation(BROKEN)
    if compared.made_from:
        return Situation(EDITED)
    if not any(entry.relative > 0 for entry in compared.related_matrices):
        return Situation(NO_MATRIX)
    if not compared.says_where:
        return Situation(ROUNDING)
    energies = _energy_by_layer(compared)
    layers, share = judgement.where_most_is(energies)
    if judgement.are_few(len(layers), len(energies)):
        return Situation(FEW_LAYERS, tuple(sorted(layers)), share, len(energies))
    return Situation(EVERYWHERE, depth=len(energies))


def _energy_by_layer(compared: Compared) -> dict[int, float]:
    """‖W_f − W_b‖_F² over that of the matrix that changed most, summed over each layer.

    Related matrices count; a layer of identical ones has 0.
    """
    energies = {entry.layer: 0.0 for entry in compared.entries if entry.layer is not None}
    measured = list(with_measures(compared.related_matrices))
    most = max((found.change.norm for _, found in measured), default=0.0) or 1.0
    for entry, found in measured:
        if entry.layer is not None:
            energies[entry.layer] += (found.change.norm / most) ** 2
    return energies
