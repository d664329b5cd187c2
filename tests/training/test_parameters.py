"""Which parameters the anchored matrices are, under whatever wrapper, and what is refused by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anchors
import pytest
import torch
from torch import nn

from uvmerge import InputRefused
from uvmerge.training import RotationAnchor

pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")
Q = "model.layers.0.self_attn.q_proj.weight"


def small(**config: Any) -> Any:
    return anchors.llama(num_hidden_layers=1, **config)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anchor")
    return anchors.build(folder / "anchor", anchors.layer_matrices(small()), 6)


def lora(model: nn.Module, **options: Any) -> Any:
    """A model with a LoRA adapter that is not 0."""
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(model, LoraConfig(**{"r": 3, "target_modules": ["q_proj"], **options}))
    torch.manual_seed(2)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            nn.init.normal_(parameter, std=0.1)
    return wrapped


def test_the_public_surface_imports_torch_on_use() -> None:
    code = (
        "import sys, uvmerge.training as t\n"
        "assert 'torch' not in sys.modules and dir(t) == t.__all__\n"
        "t.RotationAnchor; assert 'torch' in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import uvmerge.training

    with pytest.raises(AttributeError, match="no attribute 'Anchor'"):
        uvmerge.training.Anchor  # noqa: B018


def test_wrappers_of_torch_and_peft_change_nothing(path: Path) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    checkpointed = small()
    checkpointed.model.layers[0] = checkpoint_wrapper(checkpointed.model.layers[0])
    for model in (nn.DataParallel(small()), torch.compile(small()), checkpointed, lora(small())):
        terms = RotationAnchor.load(path).bind(model).terms
        assert Q in terms and len(terms) in (1, 7)


def test_names_may_differ_by_one_prefix(path: Path) -> None:
    assert len(RotationAnchor.load(path).bind(small().model).terms) == 7


def test_tied_matrices_are_anchored_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = small(tie_word_embeddings=True)
    head = model.lm_head.weight
    assert head is model.model.embed_tokens.weight
    weights = {"lm_head.weight": head, "model.embed_tokens.weight": head}
    anchor = RotationAnchor.load(anchors.build(tmp_path / "tied", weights, 6))
    bound = anchor.bind(model)
    assert list(bound.terms) == ["lm_head.weight"]
    told = "1 of 2 matrices anchored; skipped, tied to lm_head.weight: 1 matrix: model.embed_tokens"
    assert told in caplog.text


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["embed_tokens"], ["c_attn"]])
def test_lora_costs_what_the_merged_model_costs(tmp_path: Path, targets: list[str]) -> None:
    """Linear, and layers whose weight is stored as (in, out)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    gpt = GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    is_gpt = targets == ["c_attn"]
    model = GPT2LMHeadModel(gpt) if is_gpt else small()
    weights = {
        n: p for n, p in model.named_parameters()
        if p.ndim == 2 and any(target in n for target in targets)
    }  # fmt: skip
    options: dict[str, Any] = {"target_modules": targets, "fan_in_fan_out": is_gpt}
    for side in ("two", "left", "right"):
        stored = anchors.build(tmp_path / side, weights, 4, transposed=is_gpt)
        anchor, start = RotationAnchor.load(stored, side=side), {}
        for name, weight in weights.items():
            start[name] = weight.detach().clone()
        wrapped = lora(model, **options)
        penalty = anchor.penalty(wrapped)
        anchor.add_gradient(wrapped)
        factors = [p for n, p in wrapped.named_parameters() if "lora_" in n]
        automatic = torch.autograd.grad(penalty, factors)
        for parameter, wanted in zip(factors, automatic, strict=True):
            torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-6)
        model = wrapped.merge_and_unload()
        after = dict(model.named_parameters())
        merged = 0.0
        for name, before in start.items():
            D = after[name].detach() - before
            U, V = anchor.file.factors(name)
            outputs, inputs = (V, U) if is_gpt else (U, V)
            D = D.T if is_gpt else D
            D = D if side == "right" else outputs.T @ D
            D = D if side == "left" else D @ inputs
            merged += float((D**2).sum())
        assert penalty.item() == pytest.approx(merged, rel=1e-5)
        with torch.no_grad():
            for name, before in start.items():
                after[name].copy_(before)
        weights = {name: after[name] for name in weights}


def change(name: str = Q, **to: Any) -> Callable[[Any], Any]:
    """The model with another parameter in the place of one."""

    def changed(model: Any) -> Any:
        module, _, last = name.rpartition(".")
        parameter = nn.Parameter(to["data"], requires_grad=to.get("trained", False))
        setattr(model.get_submodule(module), last, parameter)
        return model

    return changed


def freeze(model: Any) -> Any:
    model.get_parameter(Q).requires_grad = False
    return model


def move(model: Any) -> Any:
    with torch.no_grad():
        model.get_parameter(Q)[0, 0] += 1e-3
    return model


def packed(model: Any) -> Any:
    layer = model.model.layers[0].self_attn.q_proj
    del layer.weight
    layer.register_buffer("qweight", torch.zeros(4, 4, dtype=torch.int32))
    return model


def osf(model: Any) -> Any:
    from peft import OSFConfig, get_peft_model

    return get_peft_model(model, OSFConfig(target_modules=["q_proj"], effective_rank=4))


def two_adapters(model: Any) -> Any:
    from peft import LoraConfig

    wrapped = lora(model)
    wrapped.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"]))
    wrapped.base_model.set_adapter(["default", "other"])
    return wrapped


def merged(model: Any) -> Any:
    wrapped = lora(model)
    wrapped.merge_adapter()
    return wrapped


def inference(model: Any) -> Any:
    return lora(model, inference_mode=True)


def beside(model: Any) -> Any:
    wrapped = lora(model)
    wrapped.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight.requires_grad = True
    return wrapped


def engine(model: Any) -> Any:
    kind = type("DeepSpeedEngine", (nn.Module,), {"__module__": "deepspeed.runtime.engine"})
    wrapped = kind()
    wrapped.module = model
    return wrapped


def zero3(model: Any) -> Any:
    model.get_parameter(Q).ds_id = 1
    return model


def flat(model: Any) -> Any:
    wrapped = type("FullyShardedDataParallel", (nn.Module,), {})()
    wrapped.module = model
    return wrapped


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (freeze, f"{Q}: is frozen, so there is nothing to anchor"),
        (move, f"{Q}: has other values than the base of the anchor"),
        (change(data=torch.zeros(32, 32, dtype=torch.int8)), f"{Q}: is quantised (torch.int8)"),
        (change(data=torch.zeros(32, 32).to(torch.float8_e4m3fn)), f"{Q}: is quantised (torch.fl"),
        (change(data=torch.zeros(32, 32, device="meta"), trained=True), f"{Q}: is on the meta"),
        (packed, f"{Q}: is quantised (qweight)"),
        (change(data=torch.zeros(32, 33), trained=True), f"{Q}: has shape (32, 33) in the model, (3"),
        (lambda model: nn.Sequential(nn.Linear(2, 2)), "anchor: the model lacks 7 matrices: model.l"),
        (lambda model: lora(model, use_dora=True), f"{Q}: is trained by Dora"),
        (lambda model: lora(model, init_lora_weights="pissa"), f"{Q}: has other values than the b"),
        (osf, f"{Q}: is trained by "),
        (two_adapters, f"{Q}: is trained by 2 adapters at once"),
        (merged, f"{Q}: has its adapter merged into the weight"),
        (inference, f"{Q}: its adapter is frozen"),
        (beside, f"{Q}: is trained by the weight and an adapter at once"),
        (lambda model: lora(model, target_modules=["lm_head"]), "0 of 7 matrices can be anchored: f"),
        (engine, "the trainer: DeepSpeed owns the gradients"),
        (zero3, "the trainer: DeepSpeed owns the gradients"),
        (flat, "the model: is wrapped in FullyShardedDataParallel (FSDP1)"),
    ],
)  # fmt: skip
def test_what_cannot_be_anchored_is_refused_by_name(
    path: Path, make: Callable[[Any], Any], words: str
) -> None:
    anchor = RotationAnchor.load(path)
    with pytest.raises(InputRefused) as caught:
        anchor.penalty(make(small()))
    assert words in str(caught.value) and "\n  " in str(caught.value)


def test_any_start_can_be_asked_for(path: Path) -> None:
    anchor = RotationAnchor.load(path, start="current")
    model = move(small())
    assert anchor.penalty(model).item() == 0.0
    move(model)
    assert anchor.penalty(model).item() > 0.0
    with pytest.raises(InputRefused, match="starts with an adapter that is not 0"):
        anchor.penalty(lora(small()))
