"""What the examples in `tests/mergekit` mean, written a second time: in float64, one tensor after the
other, from PyYAML's own data. Nothing here uses uvmerge, but for the uniform numbers of random masks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from uvmerge.spectral.draw import Draw

Models = dict[str, dict[str, Tensor]]
LAYER = re.compile(r"(?:model\.language_model|model)\.layers\.(\d+)\.")
OF_SLICE = {"embed_tokens": 0, "model.norm": -1, "language_model.norm": -1, "lm_head": -1}


def merged(file: Path, models: Models, depth: int) -> dict[str, Tensor]:
    """Every tensor of the output of one example.

    Args:
        models: the tensors of each model by name, in float64.
        depth: layers of every model.
    """
    config = yaml.safe_load(file.read_text())
    found: dict[str, Tensor] = {}
    for part in _modules(config, depth):
        start = 0
        for number, each in enumerate(part["slices"]):
            first, stop = each["sources"][0]["layer_range"]
            for offset in range(stop - first):
                position = offset / (stop - first - 1) if stop - first > 1 else 1.0
                for name in _names(models, part["name"], first + offset):
                    out = _renumbered(name, start + offset)
                    found[out] = _tensor(config, part, each, out, offset, position, models)
            start += stop - first
            for name in _outside(models, part["name"]):
                last = len(part["slices"]) - 1
                at = next((place for word, place in OF_SLICE.items() if word in name), 0)
                if number == (last if at else 0):
                    found[name] = _tensor(config, part, each, name, None, 0.0, models)
    return found


def _modules(config: dict[str, Any], depth: int) -> list[dict[str, Any]]:
    """The parts of the model, each with slices."""
    given = config.get("modules") or {"": config}
    return [
        {"name": name, "parameters": part.get("parameters") if name else None,
         "slices": part.get("slices") or [_whole(part, config.get("base_model"), depth)]}
        for name, part in given.items()
    ]  # fmt: skip


def _whole(part: dict[str, Any], base: str | None, depth: int) -> dict[str, Any]:
    """The slice that a list of models stands for; a base that is not listed is appended."""
    sources = [dict(each, layer_range=[0, depth]) for each in part["models"]]
    if base and all(each["model"] != base for each in sources):
        sources.append({"model": base, "layer_range": [0, depth]})
    return {"sources": sources}


def _names(models: Models, module: str, layer: int) -> list[str]:
    names = next(iter(models.values()))
    return [n for n in names if _owns(module, n) and (m := LAYER.match(n)) and int(m[1]) == layer]


def _outside(models: Models, module: str) -> list[str]:
    return [n for n in next(iter(models.values())) if _owns(module, n) and not LAYER.match(n)]


def _owns(module: str, name: str) -> bool:
    if not module:
        return True
    connects, sees = "merger" in name, ".visual." in name
    wanted = {"multi_modal_projector": connects, "vision_tower": sees and not connects}
    return wanted.get(module, not sees)


def _renumbered(name: str, layer: int) -> str:
    return LAYER.sub(lambda m: m[0].replace(f".{m[1]}.", f".{layer}."), name, count=1)


def _tensor(
    config: dict[str, Any], part: dict[str, Any], each: dict[str, Any], out: str,
    offset: int | None, position: float, models: Models,
) -> Tensor:  # fmt: skip
    """One tensor of the output."""
    base = each.get("base_model") or config.get("base_model")
    above = [each.get("parameters"), part["parameters"], config.get("parameters")]

    def setting(word: str, default: Any, source: dict[str, Any] | None = None) -> Any:
        levels = [source.get("parameters"), *above] if source else above
        name = out if source is None else inside(source)
        return _resolved(levels, word, name, position, default)

    def inside(source: dict[str, Any]) -> str:
        return out if offset is None else _renumbered(out, source["layer_range"][0] + offset)

    tensors = [
        models[source["model"].rpartition("/")[2]][inside(source)] for source in each["sources"]
    ]
    at = [source["model"] for source in each["sources"]].index(base) if base in [
        source["model"] for source in each["sources"]] else None  # fmt: skip
    return METHODS[config["merge_method"]](each["sources"], tensors, at, setting, out)


def _resolved(levels: Sequence[Any], word: str, name: str, position: float, default: Any) -> Any:
    for level in levels:
        value = _evaluated((level or {}).get(word), name, position)
        if value is not None:
            return value
    assert default is not None, (word, name)
    return default


def _evaluated(value: Any, name: str, position: float) -> Any:
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        fits = (v["value"] for v in value if v.get("filter") in (None, "*") or v["filter"] in name)
        return _evaluated(next(fits, None), name, position)
    if isinstance(value, list):
        low = min(int(position * (len(value) - 1)), len(value) - 1)
        share = position * (len(value) - 1) - low
        return (1 - share) * value[low] + share * value[min(low + 1, len(value) - 1)]
    return float(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else value


Setting = Callable[..., Any]


def _split(sources: Sequence[Any], tensors: Sequence[Tensor], base: int | None) -> Any:
    """(the base, the sources beside it, their differences from it)."""
    assert base is not None
    others = [i for i in range(len(sources)) if i != base]
    return tensors[base], [sources[i] for i in others], [tensors[i] - tensors[base] for i in others]


def linear(sources: Any, tensors: Any, base: Any, setting: Setting, out: str) -> Tensor:
    weights = [setting("weight", None, source) for source in sources]
    return sum(w * t for w, t in zip(weights, tensors)) / sum(weights)


def passthrough(sources: Any, tensors: Any, base: Any, setting: Setting, out: str) -> Tensor:
    return tensors[0] * setting("scale", 1.0, sources[0])


def on_arc(one: Tensor, other: Tensor, t: float, straight: float) -> Tensor:
    cosine = float((one * other).sum() / (one.norm() * other.norm()))
    if abs(cosine) > straight:
        return (1 - t) * one + t * other
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * one + math.sin(t * angle) * other) / math.sin(angle)


def slerp(sources: Any, tensors: Any, base: Any, setting: Setting, out: str) -> Tensor:
    return on_arc(tensors[base], tensors[1 - base], setting("t", None), 0.9995)


def nuslerp(sources: Any, tensors: Any, base: Any, setting: Setting, out: str) -> Tensor:
    start, others, (one, other) = _split(sources, tensors, base)
    first, second = (setting("weight", None, each) for each in others)
    t = second / (first + second)
    if one.dim() < 2:
        return start + on_arc(one, other, t, 1 - 1e-15)
    rows = zip(one.reshape(-1, one.shape[-1]), other.reshape(-1, one.shape[-1]))
    return start + torch.stack([on_arc(a, b, t, 1 - 1e-15) for a, b in rows]).reshape(one.shape)


def nearswap(sources: Any, tensors: Any, base: Any, setting: Setting, out: str) -> Tensor:
    start, _, (delta,) = _split(sources, tensors, base)
    share = (setting("t", None) / delta.abs()).clamp(0, 1)
    return share * (start + delta) + (1 - share) * start


def model_stock(sources: Any, tensors: Any, base: Any, setting: Setting, out: str) -> Tensor:
    start, _, deltas = _split(sources, tensors, base)
    pairs = [(a, b) for i, a in enumerate(deltas) for b in deltas[i + 1 :]]
    cosine = sum(float((a * b).sum() / (a.norm() * b.norm())) for a, b in pairs) / len(pairs)
    ratio = len(deltas) * cosine / (1 + (len(deltas) - 1) * cosine)
    return ratio * sum(start + d for d in deltas) / len(deltas) + (1 - ratio) * start


def sce(sources: Any, tensors: Any, base: Any, setting: Setting, out: str) -> Tensor:
    start, _, deltas = _split(sources, tensors, base)
    stacked = torch.stack(deltas)
    spread = stacked.var(dim=0, unbiased=False).flatten()
    count = int(setting("select_topk", 1.0) * int((spread > 0).sum()))
    kept = torch.zeros_like(spread)
    kept[spread.sort(descending=True, stable=True).indices[:count]] = 1
    stacked = stacked * kept.reshape(start.shape)
    weights = stacked.square().flatten(1).mean(1)
    shares = (weights / weights.sum()).reshape(-1, *[1] * start.dim())
    agrees = (stacked.sign() == ((stacked.sum(0) >= 0).double() * 2 - 1)).double()
    divisor = (shares * agrees).sum(0)
    return start + (shares * agrees * stacked).sum(0) / torch.where(divisor == 0, 1.0, divisor)


def _largest(delta: Tensor, density: float) -> Tensor:
    """The share of the largest magnitudes; of equal ones those of lower index."""
    if density >= 1:
        return delta
    count = max(1, int(density * delta.numel()))
    kept = torch.zeros(delta.numel(), dtype=torch.float64)
    kept[delta.flatten().abs().sort(descending=True, stable=True).indices[:count]] = 1
    return delta * kept.reshape(delta.shape)


def _middle(delta: Tensor, density: float, gamma: float) -> Tensor:
    """What is neither among the largest nor among the smallest magnitudes."""
    if density >= 1:
        return delta
    n = delta.numel()
    low = max(0, n - int(density * n) - int(gamma * n))
    kept = torch.zeros(n, dtype=torch.float64)
    kept[delta.flatten().abs().sort(stable=True).indices[low : low + int(density * n)]] = 1
    return delta * kept.reshape(delta.shape)


def _same_sum(thin: Tensor, delta: Tensor) -> Tensor:
    """A thinned difference with the sum of magnitudes that it had."""
    return thin * (delta.abs().sum() / thin.abs().sum()) if thin.abs().sum() > 0 else thin


def _drawn(delta: Tensor, probability: Any, model: int, out: str) -> Tensor:
    kept = Draw(0, out)(model, tuple(delta.shape)) < probability
    return _same_sum(delta * kept, delta)


def _ranked(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """Probabilities from density − ε to density + ε, by rank of magnitude within a row."""
    rows = delta.reshape(-1, delta.shape[-1]) if delta.dim() > 1 else delta.reshape(1, -1)
    ranks = rows.abs().argsort(dim=1, stable=True).argsort(dim=1, stable=True).double()
    share = ranks / max(rows.shape[1] - 1, 1)
    return (density - epsilon + 2 * epsilon * share).reshape(delta.shape)


def _thinner(method: str) -> Callable[..., Tensor]:
    """How a method thins a difference."""

    def thin(delta: Tensor, of: Callable[[str, Any], Any], model: int, out: str) -> Tensor:
        density = of("density", 1.0)
        if method == "ties":
            return _largest(delta, density)
        if method.startswith("breadcrumbs"):
            return _middle(delta, density, of("gamma", 0.01))
        if method == "dare_ties" and density < 1:
            return _drawn(delta, density, model, out)
        if method == "della" and density < 1:
            return _drawn(delta, _ranked(delta, density, of("epsilon", 0.15)), model, out)
        return delta

    return thin


def _arithmetic(method: str, normalize: bool) -> Callable[..., Tensor]:
    thin = _thinner(method)

    def merge(sources: Any, tensors: Any, base: Any, setting: Setting, out: str) -> Tensor:
        start, others, deltas = _split(sources, tensors, base)
        weights = [setting("weight", None, each) for each in others]
        thinned = [
            thin(delta, lambda word, default, each=each: setting(word, default, each), i, out)
            for i, (delta, each) in enumerate(zip(deltas, others))
        ]
        divide = bool(setting("normalize", normalize))
        if method in ("ties", "dare_ties", "della", "breadcrumbs_ties"):
            weighted = torch.stack([w * d for w, d in zip(weights, thinned)])
            mask = (weighted.sign() == ((weighted.sum(0) >= 0).double() * 2 - 1)).double()
            total = (weighted * mask).sum(0)
            each = torch.tensor(weights, dtype=torch.float64).reshape(-1, *[1] * start.dim())
            share = (each * mask).sum(0)
        else:
            total = sum(w * d for w, d in zip(weights, thinned))
            share = torch.full_like(start, sum(weights))
        if divide:
            total = total / torch.where(share.abs() == 0, torch.ones_like(share), share)
        return start + setting("lambda", 1.0) * total

    return merge


METHODS: dict[str, Callable[..., Tensor]] = {
    "linear": linear, "passthrough": passthrough, "slerp": slerp, "nuslerp": nuslerp,
    "nearswap": nearswap, "model_stock": model_stock, "sce": sce,
    "task_arithmetic": _arithmetic("task_arithmetic", False), "ties": _arithmetic("ties", True),
    "dare_ties": _arithmetic("dare_ties", False), "della": _arithmetic("della", True),
    "breadcrumbs": _arithmetic("breadcrumbs", False),
}  # fmt: skip
