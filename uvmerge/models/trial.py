"""Whether transformers can load a checkpoint's model, and whether one forward pass works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputRefused, listed
from . import inputs
from .load import Loaded, load_model
from .sealing import first_line, sealed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Trial:
    """The outcome of loading and running a model.

    Attributes:
        loaded: the name of the model class, `no`, or why loading was not tried.
        forward: a description of the inputs of the forward pass, `failed`, or why no pass was tried;
            None where no model was loaded.
        problems: what is wrong with the checkpoint, a sentence each.
    """

    loaded: str
    forward: str | None = None
    problems: tuple[str, ...] = ()


def trial(folder: str | Path) -> Trial:
    """Load the model in `folder` on the CPU and run it once on inputs that fit its family.

    Where a package is not installed or inputs cannot be made up, the outcome says so; this is no
    problem of the checkpoint.
    """
    try:
        loaded = load_model(folder)
    except InputRefused as refused:
        if isinstance(refused.__cause__, (ImportError, ConnectionError)):
            return Trial(f"not tried: {refused.what}")
        file = "" if refused.where == str(folder) else f"{Path(refused.where).name}: "
        return Trial("no", problems=(f"{file}{refused.what}",))
    problems = [
        f"transformers reports {kind} keys: {listed(names, 'tensor')}"
        for kind in ("missing", "mismatched", "unexpected")
        if (names := getattr(loaded, kind))
    ]
    ran, more = _forward(loaded)
    return Trial(type(loaded.model).__name__, ran, (*problems, *more))


def _forward(loaded: Loaded) -> tuple[str, list[str]]:
    """`Trial.forward`, and the problems of the checkpoint that the forward pass shows."""
    import torch

    errors: list[tuple[str, Exception]] = []
    with sealed(), torch.inference_mode():
        made = inputs.candidates(loaded.model)
        while True:
            try:
                tried = next(made, None)
            except Exception as error:
                return f"not tried: no inputs for it can be made up ({first_line(error)})", []
            if tried is None:
                break
            try:
                output = _first_tensor(loaded.model(**tried.arguments))
            except Exception as error:
                errors.append((tried.words, error))
                continue
            is_finite = output is None or bool(torch.isfinite(output).all())
            return tried.words, [] if is_finite else ["the forward pass gives NaN or Inf"]
    if not errors:
        return "not tried: no inputs for it can be made up", []
    words, first = errors[0]
    if len(errors) == 1 and _continues_text(loaded.model) and isinstance(first, RuntimeError):
        return "failed", [f"a forward pass on {words} fails: {first_line(first)}"]
    return f"not tried: made-up inputs do not fit ({words}: {first_line(first)})", []


def _continues_text(model: Any) -> bool:
    """Whether the model takes token ids alone, so that a failing pass is the checkpoint's fault."""
    is_text = model.main_input_name == "input_ids" and not hasattr(model.config, "num_codebooks")
    return is_text and model.can_generate() and not model.config.is_encoder_decoder


def _first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor among the outputs of a model."""
    import torch

    if isinstance(output, torch.Tensor):
        return output if output.is_floating_point() else None
    values = output.values() if hasattr(output, "values") else output
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        return None
    return next((found for value in values if (found := _first_tensor(value)) is not None), None)
