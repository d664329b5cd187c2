"""The edits of the repair stage: every one of uvmerge at several strengths, and parts of the model."""

from __future__ import annotations

from typing import Any

from .edits import Edit

PROJECT, RESTORE, LAYERS = "project-two-0.5", "restore-0.2", "reset-layers-0.25"
VALUES, LAYERS_BACK = "values-0.2", "reset-layers-1"
_MODULES = ("attention", "mlp")
_LAYERS = 4  # of every model of the lab


def edits(quick: bool = False) -> list[Edit]:
    """All edits; in a quick study one or two of each operation."""
    found = [*_spectral(), *_of_layers(), *_of_the_movement()]
    return [edit for edit in found if edit.name in _QUICK] if quick else found


def _spectral() -> list[Edit]:
    tops = (0.1, 0.2, 0.5, 0.8)
    found = [_edit("restore", {"top": top}, top) for top in tops]
    found += [_edit("restore", {"top": t, "values": "base"}, "base", t) for t in (0.2, 0.5)]
    found += [
        _edit("restore", {"tail": 0.2}, "tail", 0.2),
        _edit("restore", {"top": 0.2, "tail": 0.2}, "ends", 0.2),
        _edit("restore", {"top": 0.5, "alpha": 0.5}, "half", 0.5),
    ]
    for side in ("two", "left", "right"):
        several = (0.1, 0.2, 0.3, 0.5, 0.7, 0.85) if side == "two" else (0.2, 0.5)
        found += [_edit("project", {"top": top, "side": side}, side, top) for top in several]
    found.append(_edit("project", {"top": 0.5, "alpha": 0.5}, "half", 0.5))
    for side in ("left", "right"):
        found += [_edit("swap", {side: True, "top": top}, side, top) for top in (0.2, 0.5)]
    return found + [_edit("values", {"top": top}, top) for top in (0.2, 0.5)]


def _of_layers() -> list[Edit]:
    found = [_edit("reset_layers", {"frac": frac}, frac) for frac in (0.25, 0.5, 0.75, 1)]
    found += [
        _edit("reset_layers", {"frac": frac, "from_": "last"}, "last", frac) for frac in (0.25, 0.5)
    ]
    found += [
        _edit("lines", {"start": start, "slope": slope}, start, slope)
        for start, slope in ((0, 1), (0.5, 0.5), (1, -1))
    ]
    return found


def _of_the_movement() -> list[Edit]:
    found = [_edit("denoise", {}), _edit("damp_intruders", {})]
    found.append(_edit("damp_intruders", {"threshold": 0.9, "damping": 0.5}, 0.9, 0.5))
    found += [_edit("truncate", {"top": top}, top) for top in (0.05, 0.2, 0.5)]
    return found + [
        _edit("truncate", {"top": top, "drop": True}, "drop", top) for top in (0.05, 0.1)
    ]


def parts(quick: bool = False) -> list[Edit]:
    """Edits of one kind of module, or of one layer, alone."""
    both = (("project", {"top": 0.5}), ("interpolate", {"scale": 0.0}))
    found = []
    for operation, options in both:
        where = [{"modules": module} for module in _MODULES]
        where += [{"layers": str(layer)} for layer in range(_LAYERS)]
        found += [_edit(operation, {**options, **each}, "in", *each.values()) for each in where]
    return found[:2] if quick else found


def _edit(operation: str, options: dict[str, Any], *words: object) -> Edit:
    name = "-".join([operation.replace("_", "-"), *map(str, words)])
    return Edit(name, operation, options)


_QUICK = {
    RESTORE, "project-two-0.2", PROJECT, "project-left-0.5", "swap-left-0.2", VALUES, LAYERS,
    LAYERS_BACK, "lines-0-1", "denoise", "damp-intruders", "truncate-drop-0.05",
}  # fmt: skip
