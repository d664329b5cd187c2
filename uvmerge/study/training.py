"""Ways to fine-tune that are compared: plain SFT, and what is meant to forget less.

Every way trains the same base on the same hands in the same order with the same optimiser. What differs
is the rate, the loss, a penalty, or which parameters are trained.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .lab import Pair, load

if TYPE_CHECKING:
    from torch import Tensor

DRIFT_TOP = 0.2  # of the block in which the drift of every way is measured
LAST = 10  # steps over which the training loss is averaged


@dataclass(frozen=True)
class Way:
    """A way to fine-tune.

    Attributes:
        name: in the journal.
        label: in tables.
        rate: peak learning rate, as a share of the study's.
        loss: `sft`, `kl`, `dft` or `iw`.
        penalty: `rpsft`; `l2` over the anchored matrices; `l2-all` over all parameters; or none.
        strength: λ of the penalty, or the factor of the divergence.
        top: share of the singular values that is anchored; of OSF, that is frozen.
        side: of the penalty.
        osf: train only what PEFT's OSF trains.
    """

    name: str
    label: str
    rate: float = 1.0
    loss: str = "sft"
    penalty: str = ""
    strength: float = 0.0
    top: float = DRIFT_TOP
    side: str = "two"
    osf: bool = False


class Loss:
    """The loss of a way in `demo.train.fit`, which remembers the cross entropy of each step.

    Args:
        way: the way.
        reference: the base, where the loss needs it.
    """

    def __init__(self, way: Way, reference: Any) -> None:
        self.way, self.reference, self.seen = way, reference, list[float]()

    def __call__(self, logits: Tensor, answers: Tensor, questions: Tensor) -> Tensor:
        """The loss of a step."""
        import torch

        from ..training import losses

        log_probs, counts = losses.label_log_probs(logits, answers)
        self.seen.append(-float(log_probs.detach().mean()))
        if self.way.loss == "dft":
            return losses.dft(log_probs).mean()
        if self.way.loss == "sft":
            return -log_probs.mean()
        with torch.no_grad():
            asked = self.reference(input_ids=questions, use_cache=False, logits_to_keep=1)
        before = asked.logits[:, -1]
        if self.way.loss == "kl":
            return (self.way.strength * losses.kl_divergence(logits, before) - log_probs).mean()
        of_base, _ = losses.label_log_probs(before, answers)
        # Each answer is one token, so that each sequence has a mean over one token.
        ours, theirs, counted = (each.unsqueeze(-1) for each in (log_probs, of_base, counts))
        return -(losses.importance_weights(ours, theirs, counted) * log_probs).mean()


def trained(
    pair: Pair, way: Way, on_step: Callable[[int, Any], object] | None = None
) -> tuple[Any, dict[str, float]]:
    """A model that was fine-tuned in a way, and what was measured of its training.

    The weights are rounded to bfloat16, as a stored checkpoint has them.

    Returns:
        The model; and `training_loss`, the cross entropy of the last steps without any penalty, and
        `drift`, the square root of Σ‖Uᵀ(W − W₀)V‖² over the leading 20 % of the layers' matrices.
    """
    import torch

    from ..demo.train import fit

    with quiet_log():
        model, drift = load(pair.base), _anchor(pair, DRIFT_TOP, strength=0.0)
        drift.bind(model)
        penalty = _penalty(pair, way)
        loss = Loss(way, load(pair.base) if way.loss in ("kl", "iw") else None)
        tuned = _in_osf(model, way.top) if way.osf else model
        course = pair.course(way.rate)
        add = None if penalty is None else penalty.add_gradient
        fit(tuned, pair.tokenizer, course, loss=loss, add_gradient=add, on_step=on_step)
        model = tuned.merge_and_unload() if way.osf else tuned
        model = model.to(torch.bfloat16).float()
        last = loss.seen[-LAST:]
        found = {"training_loss": sum(last) / len(last), "drift": drift.drift(model)}
    return model, found


@contextmanager
def quiet_log() -> Iterator[None]:
    """Leave out what a penalty says of its matrices each time that it meets a model."""
    log = logging.getLogger("uvmerge")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _anchor(pair: Pair, top: float, **options: Any) -> Any:
    """The anchor of the leading singular vectors of the pair's base, built once."""
    import uvmerge

    from ..training import RotationAnchor

    path: Path = pair.folder / f"anchor-{top}.safetensors"
    if not path.exists():
        uvmerge.anchor_build(pair.base, path, top=top, dtype="fp32", device="cpu", quiet=True)
    return RotationAnchor.load(path, **options)


def _penalty(pair: Pair, way: Way) -> Any:
    """The penalty of a way, or None."""
    from ..training import StartAnchor

    if way.penalty == "rpsft":
        return _anchor(pair, way.top, strength=way.strength, side=way.side)
    if way.penalty == "l2":
        return StartAnchor(matrices=_anchor(pair, way.top).file.matrices, strength=way.strength)
    return StartAnchor(strength=way.strength) if way.penalty else None


def _in_osf(model: Any, top: float) -> Any:
    """The model in PEFT's OSF: of each projection the leading directions are frozen, as is all else."""
    import warnings

    from peft import OSFConfig, get_peft_model

    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = OSFConfig(effective_rank=top, target_modules=projections)
    with warnings.catch_warnings():  # PEFT reads what transformers will rename
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)
