"""Merge adapters with PEFT, one module at a time. The one place that imports peft to read adapters.

PEFT gets a model that has nothing but the module to merge, at the module's own path, so that it finds
rank and alpha by its own patterns. The weight is given to the module before the adapter is, since over
a base without data PEFT would leave the adapter without data, too, and merge nothing without an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..checkpoint.adapter import PREFIX, Adapter
from ..checkpoint.adapter_targets import Merge, Parameter, token_indices
from ..checkpoint.folder import Tensor as Stored
from ..checkpoint.header import Entry
from ..errors import RunFailed, UsageError
from .sealing import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn


def refuse_no_peft(where: str) -> None:
    """Refuse an adapter where PEFT is not installed."""
    if find_spec("peft") is None:
        raise UsageError(where, "is an adapter, and needs peft", "pip install 'uvmerge[peft]'")


def merge(
    adapter: Adapter,
    merges: Sequence[Merge],
    tensors: Mapping[str, Stored],
    read: Callable[[Stored], bytearray],
    scale: float = 1.0,
) -> dict[str, memoryview]:
    """The merged bytes of some tensors of a base, by name.

    Args:
        merges: changes that belong together, in the order in which they are made.
        tensors: every tensor of the base that the merges change.
        read: reads one of them.
        scale: what the change is multiplied by.

    Raises:
        RunFailed: PEFT fails, or leaves a weight as it was although its B is not 0.
    """
    import torch

    values = {name: _tensor(read(each), each) for name, each in tensors.items()}
    with torch.no_grad():
        for each in merges:
            values |= _merged(adapter, each, values, scale)
    return {name: _bytes(value, tensors[name]) for name, value in values.items()}


def _merged(
    adapter: Adapter, merge: Merge, values: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """The changed tensors of one merge, by their names in the base."""
    factors = {k: _tensor(adapter.read(e), e) for k, e in merge.change.tensors.items()}
    if merge.change.kind == "saved":
        return {
            p.tensors[0]: factors[p.name].to(values[p.tensors[0]].dtype) for p in merge.parameters
        }
    if merge.change.kind == "rows":
        (parameter,) = merge.parameters
        whole = values[parameter.tensors[0]]
        at = torch_indices(token_indices(adapter, merge.change))
        rows = factors["trainable_tokens_delta"].to(whole.dtype)
        return {parameter.tensors[0]: whole.index_copy(0, at, rows)}
    found: dict[str, Tensor] = {}
    before = {p.name: _as_one(p, values, merge) for p in merge.parameters}
    try:
        after = _by_peft(adapter, merge, before, factors, scale)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise RunFailed(
            merge.change.module, f"PEFT cannot merge the adapter {adapter.label}: {first_line(error)}",
            "Is the adapter whole, and made by this or an older version of PEFT?",
        ) from error  # fmt: skip
    for parameter in merge.parameters:
        found |= _apart(parameter, after[parameter.name], merge)
    return found


def _by_peft(
    adapter: Adapter,
    merge: Merge,
    before: Mapping[str, Tensor],
    factors: Mapping[str, Tensor],
    scale: float,
) -> dict[str, Tensor]:
    """The merged parameters of one module, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names and types of layers
        import peft
        from peft.tuners.lora import LoraLayer

        bare, leaf = _skeleton(merge, before)
        model = peft.PeftModel(bare, _config(peft, adapter, merge))
        state = {f"{PREFIX}{merge.change.module}.{name}": v for name, v in factors.items()}
        peft.set_peft_model_state_dict(model, state)
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        for layer in layers:
            refuse_no_data(merge.change.module, layer)
            layer.scaling = {name: each * scale for name, each in layer.scaling.items()}
            layer.merge(safe_merge=True)  # type: ignore[operator]
    after = {name: getattr(leaf, name).data for name in before}
    for parameter, (_, B) in zip(merge.parameters, _pairs(factors)):
        if scale:
            _refuse_unchanged(adapter, merge, (before[parameter.name], after[parameter.name]), B)
    return after


def _skeleton(merge: Merge, parameters: Mapping[str, Tensor]) -> tuple[nn.Module, nn.Module]:
    """(a model of the one module, the module), with the weights of the base."""
    from torch import nn

    model = nn.Module()
    *path, last = merge.change.module.split(".")
    parent = model
    for name in path:
        child = nn.Module()
        parent.add_module(name, child)
        parent = child
    leaf: Any
    if merge.change.kind == "parameters":
        leaf = nn.Module()
        leaf.is_transposed = merge.transposed
    else:
        rows, columns = parameters["weight"].shape
        leaf = (
            nn.Embedding(rows, columns, device="meta")
            if merge.change.kind == "embedding"
            else nn.Linear(columns, rows, bias=False, device="meta")
        )
    for name, value in parameters.items():
        setattr(leaf, name, nn.Parameter(value, requires_grad=False))
    parent.add_module(last, leaf)
    return model, leaf


def _config(peft: Any, adapter: Adapter, merge: Merge) -> Any:
    """A config of PEFT that targets the module of one merge and nothing else."""
    settings, module = adapter.settings, merge.change.module
    chosen: dict[str, Any] = {
        "r": settings.r, "lora_alpha": settings.lora_alpha, "use_rslora": settings.use_rslora,
        "use_dora": settings.use_dora, "rank_pattern": dict(settings.rank_pattern),
        "alpha_pattern": dict(settings.alpha_pattern), "target_modules": [module],
    }  # fmt: skip
    if merge.change.kind == "parameters":
        names = [f"{module}.{parameter.name}" for parameter in merge.parameters]
        chosen |= {"target_modules": [], "target_parameters": names}
    return peft.LoraConfig(**chosen)


def refuse_no_data(module: str, layer: Any) -> None:
    """Fail where a factor has no data: a merge with it would silently change nothing."""
    if any(parameter.is_meta for parameter in layer.parameters()):
        raise RunFailed(
            module, "PEFT left a factor of the adapter without data",
            "This is a mistake in uvmerge or PEFT: please report it. Nothing was published.",
        )  # fmt: skip


def _refuse_unchanged(
    adapter: Adapter, merge: Merge, weights: tuple[Tensor, Tensor], B: Tensor
) -> None:
    """Fail where a merge has changed no value although B is not 0."""
    import torch

    before, after = weights
    if bool(B.any()) and torch.equal(before, after):
        raise RunFailed(
            merge.change.module,
            f"is as before after the merge of {adapter.label}, although its B is not 0",
            "The adapter's change is lost in the base's dtype, or PEFT did not merge it: give the base"
            " in float32.",
        )


def _pairs(factors: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The factors (A, B) of each parameter, the innermost wrapper's first."""
    firsts = sorted((k for k in factors if k.endswith(("lora_A.weight", "embedding_A"))), key=len)
    seconds = [k.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B") for k in firsts]
    return [(factors[a], factors[b]) for a, b in zip(reversed(firsts), reversed(seconds))]


def _as_one(parameter: Parameter, values: Mapping[str, Tensor], merge: Merge) -> Tensor:
    """A parameter as PEFT sees it: experts stacked, a linear map (out, in)."""
    import torch

    if parameter.per_expert:
        several = [values[name] for name in parameter.tensors]
        return torch.cat(several).view(parameter.shape)
    value = values[parameter.tensors[0]]
    return value.mT if merge.transposed and merge.change.kind == "linear" else value


def _apart(parameter: Parameter, value: Tensor, merge: Merge) -> dict[str, Tensor]:
    """The inverse of `_as_one`: by name, the tensors as the base stores them."""
    if parameter.per_expert:
        parts = value.flatten(0, 1).chunk(len(parameter.tensors))
        return dict(zip(parameter.tensors, parts, strict=True))
    is_map = merge.transposed and merge.change.kind == "linear"
    return {parameter.tensors[0]: value.mT if is_map else value}


def torch_indices(rows: Sequence[int]) -> Tensor:
    """Row numbers as torch takes them."""
    import torch

    return torch.tensor(rows, dtype=torch.int64)


def _tensor(raw: bytearray, stored: Stored | Entry) -> Tensor:
    import torch

    dtypes = {
        "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64
    }  # fmt: skip
    return torch.frombuffer(raw, dtype=dtypes[stored.dtype]).view(stored.shape)


def _bytes(value: Tensor, stored: Stored) -> memoryview:
    import torch

    assert tuple(value.shape) == stored.shape, stored.name
    flat = value.contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data
