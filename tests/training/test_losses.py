"""The baselines beside the penalty: their formulas, and as `compute_loss_func` of real trainers."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

import uvmerge
from uvmerge.errors import InputRefused, UsageError
from uvmerge.training import RotationAnchor, StartAnchor
from uvmerge.training.losses import (
    ImportanceWeightedLoss,
    KLLoss,
    dft,
    importance_weights,
    kl_divergence,
    label_log_probs,
)


def tiny(seed: int = 0, vocabulary: int = 31) -> Any:
    """A Llama of two layers with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16,
            bos_token_id=None, eos_token_id=1, pad_token_id=0,
        )
    )  # fmt: skip


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Four sequences of seven tokens; the first three have no loss, and the last sequence is short."""
    ids = torch.randint(2, 31, (4, 7), generator=torch.Generator().manual_seed(seed))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :3] = labels[3, 5:] = -100
    mask[3, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def loss_of(kind: type[Any], model: Any, reference: Any, **options: Any) -> torch.Tensor:
    data = batch()
    loss = kind(model, reference, **options)
    found: torch.Tensor = loss(
        model(data["input_ids"], attention_mask=data["attention_mask"]), data["labels"]
    )
    loss.remove()
    return found


def plain_loss(model: Any) -> torch.Tensor:
    data = batch()
    logits = model(data["input_ids"], attention_mask=data["attention_mask"]).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), data["labels"][:, 1:].flatten())


def test_log_probs_are_those_of_cross_entropy_and_ignored_labels_count_for_nothing() -> None:
    logits, labels = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    labels[0, :2] = -100
    log_probs, counts = label_log_probs(logits, labels)
    expected = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    assert -log_probs.sum().item() == pytest.approx(expected.item(), rel=1e-5)
    assert counts.sum() == 13 and not log_probs[0, :2].any()


def test_dft_has_the_gradient_of_the_loss_weighted_with_p() -> None:
    log_probs = torch.tensor([-0.1, -2.0, -5.0], requires_grad=True)
    dft(log_probs).sum().backward()
    assert torch.equal(log_probs.grad, -log_probs.detach().exp())


def test_importance_weights_are_bounded_and_of_the_mean_log_ratio() -> None:
    reference = torch.zeros(4, 3)
    log_probs = torch.tensor([[0.3, 0.1, 9.0], [4.0, 4.0, 4.0], [-1.0, -1.0, -1.0], [5.0, 5, 5]])
    counts = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0]], dtype=torch.bool)
    found = importance_weights(log_probs.requires_grad_(), reference, counts)
    assert torch.allclose(found, torch.tensor([0.2, 0.0, -1.0, 0.0]).exp() * torch.tensor(
        [1.0, 16.0, 1.0, 1.0]))  # fmt: skip
    assert not found.requires_grad


def test_kl_is_that_of_torch() -> None:
    p, q = torch.randn(2, 3, 9), torch.randn(2, 3, 9)
    expected = kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True)
    assert torch.allclose(kl_divergence(p, q), expected.sum(-1), atol=1e-6)


def test_at_the_start_both_losses_are_the_plain_loss() -> None:
    model = tiny()
    for kind in (KLLoss, ImportanceWeightedLoss):
        found = loss_of(kind, model, copy.deepcopy(model))
        assert found.item() == pytest.approx(plain_loss(model).item(), rel=1e-5)


def test_away_from_the_start_kl_is_added_with_its_strength() -> None:
    model, reference = tiny(0), tiny(1)
    found = [loss_of(KLLoss, model, reference, strength=s).item() for s in (0, 1, 3)]
    assert found[0] == pytest.approx(plain_loss(model).item(), rel=1e-5)
    assert found[2] - found[0] == pytest.approx(3 * (found[1] - found[0]), rel=1e-4)
    assert found[1] > found[0]


def test_a_sequence_that_the_model_learnt_weighs_more() -> None:
    model, reference = tiny(0), tiny(1)
    data = batch()
    logits, before = (m(data["input_ids"]).logits[:1, :-1] for m in (model, reference))
    labels = data["labels"][:1, 1:]
    loss = ImportanceWeightedLoss(model, reference)
    losses, counts = loss.token_losses(logits, before, labels)
    own, _ = label_log_probs(logits, labels)
    theirs, _ = label_log_probs(before, labels)
    weight = (own - theirs)[counts].mean().exp()
    assert torch.allclose(losses, -weight * own, atol=1e-5)


def test_accumulated_batches_are_divided_by_all_their_tokens() -> None:
    model = tiny()
    loss, data = KLLoss(model, tiny(1)), batch()
    outputs = model(data["input_ids"])
    alone = loss(outputs, data["labels"])
    model(data["input_ids"])
    among = loss(outputs, data["labels"], num_items_in_batch=torch.tensor(28))
    assert among.item() == pytest.approx(alone.item() * 14 / 28, rel=1e-6)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_reference_sees_the_mask_and_the_same_words_through_a_lora() -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny()
    loss, data = KLLoss(model, copy.deepcopy(model), strength=100.0), batch()
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))  # B = 0: no change
    outputs = wrapped(input_ids=data["input_ids"], attention_mask=data["attention_mask"])
    assert loss(outputs, data["labels"]).item() == pytest.approx(plain_loss(model).item(), rel=1e-4)


@pytest.mark.parametrize("kind", [KLLoss, ImportanceWeightedLoss])
def test_what_cannot_be_is_refused(kind: type[Any]) -> None:
    model = tiny()
    with pytest.raises(UsageError, match="shares weights with the model"):
        kind(model, model)
    loss, data = kind(model, tiny(vocabulary=33)), batch()
    outputs = SimpleNamespace(logits=torch.zeros(4, 7, 31))
    with pytest.raises(UsageError, match="has seen no forward pass"):
        loss(outputs, data["labels"])
    with pytest.raises(UsageError, match="is given no labels"):
        loss(outputs, None)
    outputs = model(data["input_ids"])
    with pytest.raises(InputRefused, match=r"\[4, 6, 33\], the model \[4, 6, 31\]"):
        loss(outputs, data["labels"])


def rows(count: int = 8) -> Any:
    from datasets import Dataset

    ids = torch.randint(2, 31, (count, 6), generator=torch.Generator().manual_seed(3)).tolist()
    return Dataset.from_list([{"input_ids": i, "labels": [-100, -100, *i[2:]]} for i in ids])


def arguments(folder: Path, **others: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "max_steps": 3, "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2, "learning_rate": 1e-2, "report_to": [], "use_cpu": True,
        "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, **others,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [KLLoss, ImportanceWeightedLoss])
def test_an_unmodified_trainer_takes_the_loss(kind: type[Any], tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments, default_data_collator

    model = tiny()
    loss = kind(model, copy.deepcopy(model))
    taught = torch.tensor(rows()["input_ids"])
    before = model(taught, labels=taught).loss.item()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments(tmp_path)),
        train_dataset=rows(),
        data_collator=default_data_collator,
        compute_loss_func=loss,
    )
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 3 and model(taught, labels=taught).loss.item() < before


def sft_trainer(folder: Path, model: Any, loss: Any, **options: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    from uvmerge.demo.train import build_tokenizer

    return SFTTrainer(
        model=model,
        args=SFTConfig(**arguments(folder), **options),
        train_dataset=rows(),
        processing_class=build_tokenizer(),
        compute_loss_func=loss,
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_trl_takes_the_loss_and_refuses_its_dft_together_with_one(tmp_path: Path) -> None:
    model = tiny()
    loss = KLLoss(model, copy.deepcopy(model))
    with pytest.raises(ValueError, match="dft"):
        sft_trainer(tmp_path, model, loss, loss_type="dft")
    trainer = sft_trainer(tmp_path, model, loss)
    trainer.train()
    assert all(entry["loss"] > 0 for entry in trainer.state.log_history if "loss" in entry)


def anchor_of(folder: Path, model: Any) -> Path:
    """The anchor of the leading four singular vectors of the layers' matrices."""
    model.save_pretrained(folder / "base")
    path = folder / "anchor.safetensors"
    uvmerge.anchor_build(folder / "base", path, rank=4, dtype="fp32", quiet=True)
    return path


def moved(model: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """The model with every parameter moved; and by how much."""
    changes = {}
    for name, parameter in model.named_parameters():
        changes[name] = 0.1 * torch.randn_like(parameter)
        parameter.data += changes[name]
    return model, changes


def test_l2_over_all_parameters_is_the_squared_distance_and_its_gradient() -> None:
    model, anchor = tiny(), StartAnchor(strength=0.5)
    assert anchor.penalty(model).item() == 0.0
    model, changes = moved(model)
    expected = 0.5 * sum(change.square().sum() for change in changes.values())
    assert anchor.penalty(model).item() == pytest.approx(float(expected), rel=1e-5)
    anchor.add_gradient(model)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, changes[name], atol=1e-6), name


def test_l2_over_the_matrices_of_an_anchor_leaves_the_others_alone(tmp_path: Path) -> None:
    model = tiny()
    path = anchor_of(tmp_path, model)
    anchor = StartAnchor.over(path, strength=1.0)
    anchor.bind(model)
    model, changes = moved(model)
    expected = sum(change.square().sum() for name, change in changes.items() if "proj" in name)
    assert anchor.drift(model) ** 2 == pytest.approx(float(expected), rel=1e-4)
    anchor.add_gradient(model)
    assert model.lm_head.weight.grad is None


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_l2_of_a_lora_is_that_of_the_merged_change() -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny()
    name = "model.layers.0.self_attn.q_proj.weight"
    wrapped = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"]))
    anchor = StartAnchor(strength=1.0, matrices=[name])
    assert anchor.penalty(wrapped).item() == 0.0
    layer = model.model.layers[0].self_attn.q_proj
    torch.nn.init.normal_(layer.lora_B.default.weight)
    change = 3 * layer.lora_B.default.weight @ layer.lora_A.default.weight
    assert anchor.penalty(wrapped).item() == pytest.approx(change.square().sum().item(), rel=1e-5)


def test_l2_refuses_what_it_cannot_hold() -> None:
    model = tiny()
    with pytest.raises(InputRefused, match="has no parameter that is trained"):
        StartAnchor().bind(model.requires_grad_(False))
    with pytest.raises(InputRefused, match="lacks 1 matrix: nothing"):
        StartAnchor(matrices=["nothing"]).bind(tiny())


def test_loss_and_both_penalties_act_together(tmp_path: Path) -> None:
    """Three steps of SGD in a trainer are those of a loop with all of it written into the loss."""
    from transformers import Trainer, TrainingArguments, default_data_collator

    model, reference, data = tiny(), tiny(1), rows(4)
    path = anchor_of(tmp_path, model)

    def penalties() -> list[Any]:
        return [RotationAnchor.load(path, strength=30.0), StartAnchor(strength=10.0)]

    looped = copy.deepcopy(model)
    written, loss = penalties(), KLLoss(looped, reference, strength=2.0)
    ids, labels = (torch.tensor(data[name]) for name in ("input_ids", "labels"))
    for _ in range(3):
        total = loss(looped(ids), labels) + sum(each.penalty(looped) for each in written)
        looped.zero_grad()
        total.backward()
        for parameter in looped.parameters():
            parameter.data -= 1e-2 * parameter.grad
    loss.remove()
    asked = arguments(
        tmp_path, gradient_accumulation_steps=1, optim="sgd", lr_scheduler_type="constant",
        max_grad_norm=0.0,
    )  # fmt: skip
    Trainer(
        model=model,
        args=TrainingArguments(**asked),
        train_dataset=data,
        data_collator=default_data_collator,
        compute_loss_func=KLLoss(model, reference, strength=2.0),
        callbacks=[each.callback() for each in penalties()],
    ).train()
    for (name, ours), theirs in zip(model.named_parameters(), looped.parameters()):
        assert torch.allclose(ours, theirs, atol=1e-6), name
    without = tiny()
    assert not torch.allclose(without.lm_head.weight, model.lm_head.weight, atol=1e-4)
