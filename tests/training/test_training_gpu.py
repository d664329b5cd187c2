"""The penalty in a Trainer on a CUDA device: mixed precision with its scaler, and compiled models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anchors
import pytest
import torch
import trainers

from uvmerge.training import RotationAnchor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # of compilers and drivers, which differ by machine
]
STRENGTH = 5.0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_grad_norm": 0.1},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        {"bf16": True},
        {"fp16": True},
        {"torch_compile": True, "torch_compile_backend": "inductor"},
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_callback_trains_what_the_penalty_in_the_loss_trains(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    models = [anchors.llama(num_hidden_layers=1) for _ in range(3)]
    path = anchors.build(tmp_path / "anchor", anchors.layer_matrices(models[0]), 6)
    args = trainers.arguments(tmp_path, use_cpu=False, **settings)
    anchor = RotationAnchor.load(path, strength=STRENGTH)
    trainers.train(models[0], anchor, args)
    assert next(models[0].parameters()).is_cuda
    assert anchor.drift(models[0]) > 1e-3
    trainers.train(models[1], RotationAnchor.load(path, strength=STRENGTH), args, in_loss=True)
    trainers.train(models[2], None, args)
    assert trainers.difference(models[0], models[1]) <= 1e-6
    assert trainers.difference(models[0], models[2]) > 1e-4  # the penalty bends the path
