"""What every saved tensor of a transformers model is, told by its module tree and nothing else.

The truth that a reading of names and shapes is compared with; uses torch and transformers, and
nothing of uvmerge.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .parameters import Parameter, module_of, parameters
from .probes import Probes, saved_tensors
from .stacks import Stack, main_stacks, stacks_of


def truth(model: Any, folder: Path) -> dict[str, Any]:
    """The truth about the tensors that `model` saved in `folder`, as plain JSON data.

    Returns:
        architecture, encoder_decoder; stacks (name, depth, kind, inner, lists, and their prefix in
        saved names); main, the names of the language stacks; tied sets; untraced tensors; tensors
        (saved name: shape, dtype, parameters, kind, class, stack, layer, module, ends, and for a
        linear map in_out, experts, expert_axis or expert, parts).
    """
    probes, stacks = Probes(model), stacks_of(model)
    known = {p.name: p for p in parameters(model)}
    ends = _ends(model)
    tensors = {}
    for name, tensor in sorted(saved_tensors(folder).items()):
        sources = [known[source] for source in probes.sources(name) if source in known]
        record = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).split(".")[1]}
        record |= _origin(sources)
        if sources:
            record |= _standing(model, sources[0], stacks) | _end(model, sources[0], ends)
            record |= _linear(model, name, tensor, sources[0], probes)
        tensors[name] = record
    return {
        "architecture": type(model).__name__,
        "encoder_decoder": bool(getattr(model.config, "is_encoder_decoder", False)),
        "stacks": [_stack_record(s, tensors) for s in stacks],
        "main": main_stacks(model, stacks),
        "tied": tied(model, probes),
        "untraced": [n for n, t in tensors.items() if not t["parameters"] and 0 not in t["shape"]],
        "tensors": tensors,
    }


def tied(model: Any, probes: Probes) -> list[dict[str, list[str]]]:
    """Sets of names of one parameter: as the state dict has them and as they would be saved."""
    same: dict[tuple[int, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, tensor in model.state_dict().items():
        if tensor.numel():
            same[tensor.data_ptr(), tuple(tensor.shape)].append(name)
    sets = []
    for names in same.values():
        if len(names) > 1:
            saved = [probes.saved_name(n) for n in names]
            sets.append({"names": names, "saved": sorted({s for s in saved if s})})
    return sets


def _ends(model: Any) -> dict[int, set[str]]:
    """Roles of input embeddings and heads, by the identity of their weight."""
    ends: dict[int, set[str]] = defaultdict(set)
    getters = {"head": "get_output_embeddings", "embeddings": "get_input_embeddings"}
    models = [m for m in model.modules() if hasattr(m, "get_input_embeddings")]
    for owner, (role, getter) in itertools.product(models, getters.items()):
        end = None
        with contextlib.suppress(AttributeError, NotImplementedError, TypeError):
            end = getattr(owner, getter)()
        is_table = "Embedding" in type(end).__name__
        if isinstance(end, nn.Module) and (role == "head" or is_table):
            for parameter in end.parameters(recurse=False):
                ends[id(parameter)] |= {role} | ({"embeddings"} if is_table else set())
    return ends


def _origin(sources: list[Parameter]) -> dict[str, Any]:
    """Parameters inside a saved tensor, and what they are."""
    kinds = list(dict.fromkeys(s.kind for s in sources)) or ["untraced"]
    record: dict[str, Any] = {"parameters": [s.name for s in sources]}
    record["kind"] = kinds[0] if len(kinds) == 1 else "mixed"
    if sources:
        record["class"] = sources[0].owner_class
    if any(s.by_table for s in sources):
        record["by_table"] = True
    return record


def _end(model: Any, parameter: Parameter, ends: dict[int, set[str]]) -> dict[str, Any]:
    roles = sorted(ends.get(id(_get(model, parameter.name)), ()))
    return {"ends": roles} if roles else {}


def _get(model: Any, name: str) -> torch.Tensor | None:
    owner, _, own = name.rpartition(".")
    return getattr(model.get_submodule(owner), own, None)


def _standing(model: Any, parameter: Parameter, stacks: list[Stack]) -> dict[str, Any]:
    """Stack, layer, inner stacks and module of a parameter."""
    found = []
    for stack in stacks:  # outer ones first
        for path in stack.lists:
            index = parameter.name.removeprefix(f"{path}.").partition(".")[0]
            if parameter.name.startswith(f"{path}.") and index.isdecimal():
                found.append((stack, int(index), len(f"{path}.{index}")))
    if not found:
        return {"stack": None, "layer": None}
    stack, layer, length = found[0]
    spread = len(stack.lists) > 1  # the block is the module itself
    record = {"stack": stack.name, "layer": layer}
    record["module"] = module_of(model, parameter, length - spread)
    if "attn" in parameter.name or "attention" in parameter.name.lower():
        record["also"] = ["attention"] if record["module"] == "mixer" else []
    if found[1:]:
        record["inner"] = [(inner.name, index) for inner, index, _ in found[1:]]
    return record


def _linear(
    model: Any, name: str, tensor: torch.Tensor, source: Parameter, probes: Probes
) -> dict[str, Any]:
    """Orientation and experts of a linear map."""
    parameter = _get(model, source.name)
    if source.out_axis is None or parameter is None or parameter.ndim < 2:
        return {}
    record: dict[str, Any] = {}
    inner_axis = {0: 1, 1: 0 if parameter.ndim == 2 else 2, 2: 1}[source.out_axis]
    out, inner = probes.varies(name, source.out_axis), probes.varies(name, inner_axis)
    if out and inner and out[-1] != inner[-1]:
        record["in_out"] = out[-1] > inner[-1]
    module = model.get_submodule(source.owner)
    if source.kind == "flat experts":
        record["experts"] = int(parameter.shape[0] // module.ffn_hidden_size)
    elif source.kind == "expert":
        record["experts"] = parameter.shape[0]
        if tensor.ndim == 3:
            record["expert_axis"] = next(iter(probes.varies(name, 0)), 0)
            parent = type(model.get_submodule(source.owner.rpartition(".")[0])).__name__
            own = f"{parent}.{source.owner.rpartition('.')[2]}"
            both = "gate_up" in source.name or own.endswith(
                ("MoE.input_linear", "AriaGroupedExpertsMLP.fc1")
            )
            if both and tensor.numel() == parameter.numel():
                halves = getattr(
                    module, "is_concatenated", type(module).__name__ != "GptOssExperts"
                )
                record["parts"] = "halves" if halves else "alternating"
        else:
            record["expert"] = probes.index(name, 0)
    return record


def _get(model: Any, name: str) -> torch.Tensor | None:
    owner, _, own = name.rpartition(".")
    return getattr(model.get_submodule(owner), own, None)


def _stack_record(stack: Stack, tensors: dict[str, Any]) -> dict[str, Any]:
    """A stack as JSON data, with the prefix before its numbers in most of its saved names."""
    prefixes: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if tensor.get("stack") == stack.name:
            parts = name.split(".")
            own = (i for i, part in enumerate(parts) if part == str(tensor["layer"]))
            prefixes.update(".".join(parts[:i]) for i in own)
    best = [p for p, n in prefixes.items() if n == max(prefixes.values())]
    return {
        "name": stack.name,
        "depth": stack.depth,
        "kind": stack.kind,
        "inner": stack.inner,
        "lists": stack.lists,
        "saved": min(best, key=len) if best else None,
    }
