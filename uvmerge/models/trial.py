"""Whether a checkpoint loads and runs: its model by transformers, and one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputRefused, listed
from . import inputs
from .load import Loaded, first_line, load_model, sealed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        loaded: the model class, or why it could not be built here.
        forward: what the forward pass ran on, or why there was none; None where nothing was loaded.
        problems: what is wrong with the checkpoint.
    """

    loaded: str
    forward: str | None = None
    problems: tuple[str, ...] = ()


def trial(folder: str | Path) -> Trial:
    """Load the model in `folder` on the CPU and run it once on inputs that fit its family.

    What cannot be tried here (a package that is not installed, inputs that cannot be made up) is
    said and is no problem of the checkpoint.
    """
    try:
        loaded = load_model(folder)
    except InputRefused as refused:
        if isinstance(refused.__cause__, ImportError):
            return Trial(f"not tried: {refused.what}")
        return Trial("no", problems=(refused.what,))
    problems = [
        f"transformers reports {kind} keys: {listed(names, 'tensor')}"
        for kind in ("missing", "mismatched", "unexpected") if (names := getattr(loaded, kind))
    ]  # fmt: skip
    ran, more = _forward(loaded)
    return Trial(type(loaded.model).__name__, ran, (*problems, *more))


def _forward(loaded: Loaded) -> tuple[str, list[str]]:
    """What a forward pass ran on, and what it tells to be wrong with the checkpoint."""
    import torch

    errors: list[tuple[str, Exception]] = []
    with sealed(), torch.inference_mode():
        for tried in inputs.fitting(loaded.model):
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
    """Whether token ids have to fit: what torch cannot compute is then the checkpoint's fault."""
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
    return next((found for each in values if (found := _first_tensor(each)) is not None), None)
