"""Trainings of the tiny Llama that only differ in where the penalty is put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from uvmerge.training import RotationAnchor


def rows(count: int = 64, length: int = 8) -> list[dict[str, Any]]:
    """Random questions, the same in every process."""
    dice = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 64, (count, length), generator=dice)
    return [{"input_ids": each, "labels": each} for each in ids]


def arguments(folder: Path, **given: Any) -> Any:
    """20 steps of SGD, large enough that the penalty bends the path."""
    from transformers import TrainingArguments

    settings: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": 20, "per_device_train_batch_size": 8,
        "optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant", "use_cpu": True,
        "max_grad_norm": 1e9, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
        "logging_steps": 5, "seed": 0, "dataloader_pin_memory": False,
    }  # fmt: skip
    return TrainingArguments(**{**settings, **given})


def train(
    model: nn.Module, anchor: RotationAnchor | None, args: Any, *, in_loss: bool = False
) -> Any:
    """Train with the penalty added by the callback, or written into the loss."""
    from transformers import Trainer

    class Reference(Trainer):  # type: ignore[misc, unused-ignore]
        def compute_loss(self, model: nn.Module, *others: Any, **named: Any) -> Any:
            loss = super().compute_loss(model, *others, **named)
            assert anchor is not None
            return loss + anchor.penalty(self.model) / self.args.gradient_accumulation_steps

    callbacks = [] if anchor is None or in_loss else [anchor.callback()]
    kind = Reference if in_loss else Trainer
    trainer = kind(model=model, args=args, train_dataset=rows(), callbacks=callbacks)
    if in_loss and anchor is not None:
        anchor.bind(model)
    trainer.train()
    return trainer


def difference(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of two models' weights."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.float() - b.float()).abs().max()) for a, b in pairs)
