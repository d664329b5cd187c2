"""The callback in an unmodified Trainer: as the penalty in the loss, resumed, scaled, reported."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anchors
import pytest
import torch
import trainers
from torch import nn

from uvmerge import InputRefused, RunFailed
from uvmerge.training import RotationAnchor

pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")
STRENGTH = 5.0


def small(dtype: torch.dtype = torch.float32) -> nn.Module:
    return anchors.llama(dtype, num_hidden_layers=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anchor")
    return anchors.build(folder / "anchor", anchors.layer_matrices(small()), 6)


CHECKPOINTING = {"gradient_checkpointing": True}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        {"gradient_accumulation_steps": 8, "per_device_train_batch_size": 1},
        {"max_grad_norm": 0.1},
        {"bf16": True},
        {**CHECKPOINTING, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {**CHECKPOINTING, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        pytest.param(
            {"torch_compile": True, "torch_compile_backend": "aot_eager"}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_callback_trains_what_the_penalty_in_the_loss_trains(
    tmp_path: Path, path: Path, settings: dict[str, Any]
) -> None:
    args = trainers.arguments(tmp_path, **settings)
    models = [small() for _ in range(3)]
    anchor = RotationAnchor.load(path, strength=STRENGTH)
    trainers.train(models[0], anchor, args)
    assert anchor.drift(models[0]) > 1e-3
    trainers.train(models[1], RotationAnchor.load(path, strength=STRENGTH), args, in_loss=True)
    assert trainers.difference(models[0], models[1]) <= 1e-6
    if settings.keys() <= {"max_grad_norm"}:
        trainers.train(models[2], None, args)
        assert trainers.difference(models[0], models[2]) > 1e-4  # the penalty bends the path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_keeps_its_start(tmp_path: Path, path: Path, dtype: torch.dtype) -> None:
    stored = anchors.build(tmp_path / "a", anchors.layer_matrices(small(dtype)), 6)
    args = trainers.arguments(tmp_path, save_strategy="steps", save_steps=2, max_steps=4)
    models = [small(dtype) for _ in range(2)]
    anchor = RotationAnchor.load(stored, strength=STRENGTH)
    trainers.train(models[0], anchor, args)
    drift = anchor.drift(models[0])

    from transformers import Trainer

    anchor = RotationAnchor.load(stored, strength=STRENGTH)
    again = Trainer(models[1], args, train_dataset=trainers.rows(), callbacks=[anchor.callback()])
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert trainers.difference(*models) == 0.0 and anchor.drift(models[1]) == drift > 1e-3

    late = Trainer(small(dtype), args, train_dataset=trainers.rows())
    late.add_callback(RotationAnchor.load(stored).callback())
    with pytest.raises(RunFailed, match="resumes at step 2, and the weights of its start are unk"):
        late.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_second_call_of_train_keeps_the_start(tmp_path: Path, path: Path) -> None:
    anchor = RotationAnchor.load(path, strength=STRENGTH, every=2)
    args = trainers.arguments(tmp_path, max_steps=3, logging_steps=1)
    trainer = trainers.train(small(), None, args)
    with pytest.raises(InputRefused, match="other values than the base of the anchor"):
        anchor.attach(trainer)  # a model that was trained before
    anchor = RotationAnchor.load(path, strength=STRENGTH, every=2, start="current")
    anchor.attach(trainer)
    drifts = []
    for _ in range(2):
        trainer.train()
        drifts += [line["block_drift"] for line in trainer.state.log_history if "loss" in line]
    assert drifts[:2] == [0.0, drifts[2]] and 0 < drifts[2] == drifts[3] < drifts[4]


def test_gradients_of_a_scaler_are_scaled(path: Path) -> None:
    """The events with the scaler that accelerate gives to its optimiser, here on a CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    models, gradients = [small(), small()], []
    for model, in_loss in zip(models, (False, True), strict=True):
        anchor = RotationAnchor.load(path, strength=STRENGTH)
        events, state = anchor.callback(), SimpleNamespace(global_step=0)
        events.on_train_begin(SimpleNamespace(), state, None, model=model)
        optimiser: Any = torch.optim.SGD(model.parameters(), lr=0.05)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01
        ids = trainers.rows(4)[0]["input_ids"][None]
        if not in_loss:
            optimiser.scaler = scaler
            events.on_step_begin(SimpleNamespace(), state, None, optimizer=optimiser)
        with torch.autocast("cpu", torch.float16):
            loss = model(input_ids=ids, labels=ids).loss
            loss = loss + anchor.penalty(model) if in_loss else loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        gradients.append([p.grad for p in model.parameters()])
        scaler.update()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_trainer_that_announces_no_step_is_stopped(path: Path) -> None:
    events, state = RotationAnchor.load(path).callback(), SimpleNamespace(global_step=0)
    events.on_train_begin(SimpleNamespace(), state, None, model=small())
    with pytest.raises(RunFailed, match="step 1 without on_step_begin: it has no penalty"):
        events.on_pre_optimizer_step(SimpleNamespace(), state, None)


@pytest.mark.parametrize("place", ["argument", "plugin", "optimiser"])
def test_deepspeed_is_refused(path: Path, place: str) -> None:
    args = SimpleNamespace(
        deepspeed="zero3.json" if place == "argument" else None,
        deepspeed_plugin=object() if place == "plugin" else None,
    )
    wrapper = type("DeepSpeedOptimizerWrapper", (), {})()
    given = {"optimizer": wrapper} if place == "optimiser" else {}
    events, state = RotationAnchor.load(path).callback(), SimpleNamespace(global_step=0)
    with pytest.raises(InputRefused, match=r"DeepSpeed owns the gradients.*\n.*FSDP2"):
        events.on_train_begin(args, state, None, model=small(), **given)
