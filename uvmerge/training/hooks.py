"""How a penalty takes part in an unmodified trainer of transformers or TRL.

Gradients of several micro-batches are summed into `parameter.grad` between `zero_grad` and clipping, and
the penalty's gradient depends on the weights alone, which rest in between. So it may be the first
summand: `on_step_begin` puts it there, before the first micro-batch. A trainer has no event between the
last backward pass and clipping, and `on_pre_optimizer_step` comes after clipping, which is another
algorithm.

What then happens to gradients happens to the sum: DistributedDataParallel averages it, and the penalty
is the same in every process; `fully_shard` adds to the gradients that are there; a gradient scaler divides
by its scale, by which the penalty is multiplied. No tensor hook is registered, so checkpointing,
torch.compile, and a parameter that a batch does not reach change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import RunFailed
from .parameters import deepspeed_refused

if TYPE_CHECKING:
    from torch import Tensor

    from .penalty import Bound, WeightPenalty


class PenaltyEvents:
    """What a penalty does at the events of a trainer.

    Args:
        penalty: the penalty.

    Attributes:
        penalty: the penalty.
        reports: whether the trainer's reports get the values.
    """

    def __init__(self, penalty: WeightPenalty) -> None:
        self.penalty, self.reports = penalty, False
        self._bound: Bound | None = None
        self._begun = False
        self._step: int | None = None  # the step that has the penalty
        self._sum: Tensor | float = 0.0
        self._count = 0
        self._values = (0.0, 0.0)  # λ·ΣR and √ΣR

    def on_init_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **others: Any
    ) -> None:
        """Take the start from the model before a checkpoint to resume from is loaded into it."""
        refuse_deepspeed(args)
        if model is not None and not any(each.is_meta for each in model.parameters()):
            self._bound = self.penalty.bind(model)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **others: Any
    ) -> None:
        """Take the start, or, where the run resumes, find the parameters again."""
        refuse_deepspeed(args, others.get("optimizer"))
        resumes = state.global_step > 0
        if resumes and self._bound is None:
            what = (
                f"resumes at step {state.global_step:,}, and the weights of its start are unknown"
            )
            do = "Pass the callback when the trainer is made: Trainer(..., callbacks=[...])."
            raise RunFailed("the trainer", what, do)
        self._bound = self.penalty.bind(model, anew=not resumes and not self._begun)
        self._begun, self._step = True, None

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Make the penalty's gradient the first summand of the step's gradient."""
        if self._bound is None or self._step == state.global_step:
            return
        self._step = state.global_step
        if (state.global_step + 1) % self.penalty.every == 0:
            scaler = getattr(others.get("optimizer"), "scaler", None)
            scale = 1.0 if scaler is None else scaler.get_scale()
            self._sum = self._sum + self.penalty.add(self._bound, scale)
            self._count += 1

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Refuse to go on without the penalty.

        Raises:
            RunFailed: the trainer did not announce the step.
        """
        if self._step != state.global_step:
            what = f"began step {state.global_step + 1:,} without on_step_begin: it has no penalty"
            raise RunFailed("the trainer", what, "Use add_gradient(model) in this loop.")

    def report(self, loss: float) -> dict[str, float]:
        """What a report of the trainer gets beside the mean loss since the last one."""
        if self._count:
            mean, strength = float(self._sum) / self._count, self.penalty.strength
            self._values = (strength * mean, mean**0.5)
            self._sum, self._count = 0.0, 0
        penalty, drift = self._values
        share = penalty / (loss + penalty) if penalty else 0.0
        return dict(zip(self.penalty.reported, (penalty, share, drift), strict=True))


def callback(penalty: WeightPenalty) -> Any:
    """A `TrainerCallback` that adds a penalty to the gradients of a trainer."""
    from transformers import TrainerCallback

    return type("WeightPenaltyCallback", (PenaltyEvents, TrainerCallback), {})(penalty)


def attach(penalty: WeightPenalty, trainer: Any) -> Any:
    """Add a penalty to a trainer, and its values to the trainer's reports. Returns the callback.

    A trainer appends to its history, and calls the reporters, before it calls a user's `on_log`; so the
    trainer's own `log` is called with the values in it.
    """
    own = (c for c in trainer.callback_handler.callbacks if isinstance(c, PenaltyEvents))
    events = next((each for each in own if each.penalty is penalty), None)
    if events is None:
        events = callback(penalty)
        events.on_init_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
        trainer.add_callback(events)
    if not events.reports:
        _report(events, trainer)
    return events


def _report(events: PenaltyEvents, trainer: Any) -> None:
    """Let the trainer's `log` have the values of a penalty beside each training loss."""
    log, events.reports = trainer.log, True

    def log_with_penalty(logs: dict[str, float], *others: Any, **named: Any) -> Any:
        if "loss" in logs:
            logs.update(events.report(logs["loss"]))
        return log(logs, *others, **named)

    trainer.log = log_with_penalty


def refuse_deepspeed(args: Any, optimizer: Any = None) -> None:
    """Refuse a trainer that leaves its gradients to DeepSpeed.

    Raises:
        InputRefused: names what to take instead.
    """
    plugin = getattr(args, "deepspeed", None) or getattr(args, "deepspeed_plugin", None)
    if plugin or type(optimizer).__name__.startswith("DeepSpeed"):
        raise deepspeed_refused()
