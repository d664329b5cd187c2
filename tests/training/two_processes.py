"""Run by torch.distributed.run in two processes: DDP and FSDP2, with the penalty here and there.

The script writes figures to the JSON file that its second argument names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anchors
import torch
import torch.distributed as dist
import trainers
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, init_device_mesh

from uvmerge import InputRefused
from uvmerge.training import RotationAnchor

STRENGTH = 5.0


def by_data_parallel(path: Path, folder: Path, **given: Any) -> dict[str, float]:
    """A Trainer in two processes: the callback against the penalty in the loss."""
    models = []
    for in_loss in (False, True):
        model, anchor = anchors.llama(), RotationAnchor.load(path, strength=STRENGTH)
        args = trainers.arguments(folder, per_device_train_batch_size=4, **given)
        trainer = trainers.train(model, anchor, args, in_loss=in_loss)
        assert isinstance(trainer.model_wrapped, nn.parallel.DistributedDataParallel)
        models.append(model)
    return {"to_loss": trainers.difference(*models), "drift": anchor.drift(models[1])}


def batches(steps: int, rank: int, accumulate: int) -> list[list[torch.Tensor]]:
    """For each step the micro-batches of a process; all of the batch where `rank` is -1."""
    rows = torch.stack([row["input_ids"] for row in trainers.rows()])
    whole = [rows[8 * (step % 8) : 8 * (step % 8) + 8] for step in range(steps)]
    own = [step if rank < 0 else step[4 * rank : 4 * rank + 4] for step in whole]
    return [list(step.chunk(accumulate)) for step in own]


def loop(model: nn.Module, steps: list[list[torch.Tensor]], add: Any, most: float) -> None:
    """SGD with clipping; `add` is told what happens, and returns what to add to the loss."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for number, step in enumerate(steps):
        add("begin", number)
        for at, ids in enumerate(step):
            is_last = at + 1 == len(step)
            if hasattr(model, "set_requires_gradient_sync"):
                model.set_requires_gradient_sync(is_last)
            loss = model(input_ids=ids, labels=ids).loss / len(step)
            extra = add("loss", number) if is_last else None
            torch.autograd.backward(loss if extra is None else loss + extra)
        add("clip", number)
        torch.nn.utils.clip_grad_norm_(model.parameters(), most)
        optimiser.step()
        optimiser.zero_grad()


def with_callback(model: nn.Module, anchor: RotationAnchor) -> Any:
    """The events of a trainer."""
    events = anchor.callback()
    args, state = SimpleNamespace(), SimpleNamespace(global_step=0)
    events.on_train_begin(args, state, None, model=model)

    def add(event: str, number: int) -> None:
        state.global_step = number
        if event == "begin":
            events.on_step_begin(args, state, None)
        if event == "clip":
            events.on_pre_optimizer_step(args, state, None)

    return add


def with_add_gradient(model: nn.Module, anchor: RotationAnchor) -> Any:
    return lambda event, number: anchor.add_gradient(model) if event == "clip" else None


def with_graph(model: nn.Module, anchor: RotationAnchor) -> Any:
    return lambda event, number: anchor.penalty(model) if event == "loss" else None


WAYS = {"callback": with_callback, "add_gradient": with_add_gradient, "penalty": with_graph}


def sharded(model: nn.Module, mesh: Any) -> nn.Module:
    for layer in model.model.layers:  # type: ignore[union-attr]
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return model


def by_shards(
    path: Path,
    ways: list[str],
    mesh: tuple[int, ...] = (2,),
    steps: int = 4,
    most: float = 1e9,
    accumulate: int = 1,
    **options: Any,
) -> dict[str, Any]:
    """fully_shard in two processes, against one process with the penalty in the loss."""
    anchor = RotationAnchor.load(path, strength=STRENGTH, **options)
    reference, plain = anchors.llama(**odd_rows()), anchors.llama(**odd_rows())
    anchor.bind(reference)
    loop(reference, batches(steps, -1, 1), with_graph(reference, anchor), most)
    loop(plain, batches(steps, -1, 1), lambda event, number: None, most)
    figures = {"to_plain": trainers.difference(reference, plain)}
    devices = init_device_mesh("cpu", mesh, mesh_dim_names=("outer", "inner")[2 - len(mesh) :])
    for way in ways:
        model = sharded(anchors.llama(**odd_rows()), devices)
        anchor = RotationAnchor.load(path, strength=STRENGTH, **options)
        anchor.bind(model)
        assert anchor.penalty(model).item() == 0.0
        own = batches(steps, dist.get_rank(), accumulate)
        loop(model, own, WAYS[way](model, anchor), most)
        pairs = zip(reference.state_dict().values(), model.state_dict().values(), strict=True)
        figures[way] = max(float((a - b.full_tensor()).abs().max()) for a, b in pairs)
        figures[f"drift_{way}"] = anchor.drift(model)
    return figures


def by_shards_of_adapters(path: Path) -> dict[str, float]:
    """The penalty's gradient on sharded LoRA factors, against those of one process."""
    from peft import LoraConfig, get_peft_model

    gradients = []
    for shards in (False, True):
        config = LoraConfig(r=3, target_modules=["q_proj", "down_proj"])
        model: Any = get_peft_model(anchors.llama(**odd_rows()), config)
        torch.manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter)
        if shards:
            fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        anchor = RotationAnchor.load(path)
        anchor.add_gradient(model)
        torch.autograd.backward(anchor.penalty(model))
        trained = [p.grad for p in model.parameters() if p.requires_grad]
        gradients.append([g.full_tensor() if isinstance(g, DTensor) else g for g in trained])
    one, two = gradients
    largest = max(float(g.abs().max()) for g in one)
    return {"lora": max(float((a - b).abs().max()) / largest for a, b in zip(one, two))}


def odd_rows() -> dict[str, int]:
    """One layer, of an inner width that two processes cannot halve."""
    return {"intermediate_size": 45, "num_hidden_layers": 1}


def columns(path: Path) -> str:
    """What a model says whose columns are sharded."""
    from torch.distributed.tensor import Shard, distribute_tensor

    model = anchors.llama(**odd_rows())
    mesh = init_device_mesh("cpu", (2,))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            split = distribute_tensor(module.weight.detach(), mesh, [Shard(1)])
            module.weight = nn.Parameter(split)
    try:
        RotationAnchor.load(path).penalty(model)
    except InputRefused as error:
        return str(error)
    return ""


def gathered(path: Path) -> str:
    """What a model says that is bound while its parameters are gathered."""
    model = sharded(anchors.llama(**odd_rows()), init_device_mesh("cpu", (2,)))
    for module in model.modules():
        getattr(module, "unshard", lambda: None)()
    try:
        RotationAnchor.load(path).penalty(model)
    except InputRefused as error:
        return str(error)
    return ""


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo")
    even, odd = anchors.llama(), anchors.llama(**odd_rows())
    own = folder / str(dist.get_rank())
    own.mkdir()
    path = anchors.build(own / "even", anchors.layer_matrices(even), 6)
    uneven = anchors.build(own / "odd", anchors.layer_matrices(odd), 6)
    figures = {
        "fsdp": by_shards(uneven, ["callback"], steps=20, accumulate=2),
        "fsdp clipped": by_shards(uneven, list(WAYS), most=0.1),
        "fsdp left": by_shards(uneven, ["callback"], side="left"),
        "fsdp right": by_shards(uneven, ["callback"], side="right"),
        "fsdp replicated": by_shards(uneven, ["callback"], mesh=(2, 1)),
        "fsdp lora": by_shards_of_adapters(uneven),
        "columns": columns(uneven),
        "gathered": gathered(uneven),
        "ddp": by_data_parallel(path, folder, gradient_accumulation_steps=2, max_grad_norm=0.1),
    }
    if dist.get_rank() == 0:
        out.write_text(json.dumps(figures))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
