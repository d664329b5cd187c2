"""An unmodified SFTTrainer with the anchor's callback, or with the anchor attached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anchors
import pytest
import trainers
from torch import nn

from uvmerge import InputRefused
from uvmerge.training import RotationAnchor

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")  # PEFT's


def sft(folder: Path, model: nn.Module, settings: Any = None, **given: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from uvmerge.demo.train import build_tokenizer

    rows = [{name: ids.tolist() for name, ids in row.items()} for row in trainers.rows()]
    args = trainers.arguments(folder, max_steps=10).to_dict()
    args = SFTConfig(**{**args, **(settings or {})})
    return SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=build_tokenizer(),
        **given,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anchor")
    return anchors.build(folder / "anchor", anchors.layer_matrices(anchors.llama()), 6)


@pytest.mark.parametrize("loss_type", ["nll", "dft"])
def test_drift_of_the_block_falls(tmp_path: Path, path: Path, loss_type: str) -> None:
    drifts = []
    for strength in (0.0, 5.0):
        model, anchor = anchors.llama(), RotationAnchor.load(path, strength=strength)
        sft(tmp_path, model, {"loss_type": loss_type}, callbacks=[anchor.callback()]).train()
        drifts.append(anchor.drift(model))
    assert 0 < drifts[1] < drifts[0] / 2


def test_drift_of_the_block_falls_with_lora(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from peft import LoraConfig

    drifts = []
    for strength in (0.0, 5.0):
        lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
        adam = {"optim": "adamw_torch", "learning_rate": 0.01}
        trainer = sft(tmp_path, anchors.llama(), adam, peft_config=lora)
        anchor = RotationAnchor.load(path, strength=strength)
        anchor.attach(trainer)
        trainer.train()
        drifts.append(anchor.drift(trainer.model))
        assert trainer.state.log_history[1]["block_drift"] > 0
    assert 0 < drifts[1] < drifts[0] / 2
    assert "4 of 14 matrices anchored; skipped, frozen, without an adapter: 10" in caplog.text


def test_what_is_attached_reaches_the_history(tmp_path: Path, path: Path) -> None:
    anchor = RotationAnchor.load(path, strength=5.0)
    trainer = sft(tmp_path, anchors.llama(), callbacks=[anchor.callback()])
    callbacks = len(trainer.callback_handler.callbacks)
    anchor.attach(trainer)
    anchor.attach(trainer)
    assert len(trainer.callback_handler.callbacks) == callbacks  # added once, reported once
    trainer.train()
    first, second, last = trainer.state.log_history
    assert 0 < first["penalty"] < second["penalty"] and "penalty" not in last
    assert second["penalty"] == pytest.approx(5.0 * second["block_drift"] ** 2)
    share = second["penalty"] / (second["penalty"] + second["loss"])
    assert second["penalty_share"] == pytest.approx(share)


def test_no_matrix_of_the_model_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    others = {f"encoder.{n}": p for n, p in anchors.layer_matrices(anchors.llama()).items()}
    others = {name.replace("self_attn", "attn"): p for name, p in others.items()}
    anchor = RotationAnchor.load(anchors.build(tmp_path / "anchor", others, 6))
    with pytest.raises(InputRefused, match=r"the model lacks 14 matrices: encoder\.model"):
        sft(tmp_path, anchors.llama(), callbacks=[anchor.callback()])
    with pytest.raises(InputRefused, match="the model lacks 14 matrices"):
        anchor.attach(sft(tmp_path, anchors.llama()))
