"""How far checkpoints have moved from a base: what `uvmerge diff` measures, as means over matrices.

Beside each stands what chance gives: the band of `diff` where it has one, and a control, the same
change with random signs, which keeps the size of every entry and no structure.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..demo import sums
from .lab import Pair, load

if TYPE_CHECKING:
    from torch import Tensor

TOP = 0.2  # of the leading block
MEASURES = {
    "relative": "‖Δ‖ / ‖W‖",
    "values": "relative change of the leading singular values",
    "angle": "mean angle of the leading singular vectors, radians",
    "inside": "share of ‖Δ‖² in the leading block",
    "diagonal": "share of the leading block's energy that changes singular values",
    "head": "turn of the first tenth of the vectors, radians",
    "bulk": "turn of the middle four tenths, radians",
    "tail": "turn of the last tenth, radians",
    "effective_rank": "effective rank of Δ",
}
"""Key -> what it is."""


def moved(base: Path, checkpoints: Sequence[Path]) -> list[dict[str, float]]:
    """The `MEASURES` of each checkpoint against the base, and what chance gives of some.

    `over_band` and `under_band` are the shares of matrices whose energy in the leading block lies over
    and under the band of chance, and `inside_chance` is the mean of what chance gives.
    """
    import uvmerge

    found = uvmerge.diff(base, *checkpoints, top=TOP, device="cpu", quiet=True)
    return [_means(each.entries) for each in found.compared]


def _means(entries: Iterable[Any]) -> dict[str, float]:
    each = [_of_matrix(entry.measures) for entry in entries if entry.measures is not None]
    return {key: fmean(one[key] for one in each) for key in each[0]}


def _of_matrix(found: Any) -> dict[str, float]:
    """The measures of one matrix; the two sides count alike."""
    tenths = [
        fmean(side[i] or 0.0 for side in (found.left.tenths, found.right.tenths)) for i in range(10)
    ]
    place = found.change.side_of_band("inside", found.k)
    return {
        "relative": found.change.relative,
        "values": found.value_change,
        "angle": (found.left.mean + found.right.mean) / 2,
        "angle_chance": (found.left.chance.mean + found.right.chance.mean) / 2,
        "inside": found.change.inside,
        "inside_chance": found.change.expected("inside", found.k),
        "diagonal": found.change.diagonal / found.change.inside if found.change.inside else 0.0,
        "diagonal_chance": 1 / found.k if found.k else 0.0,
        "over_band": float(place > 0),
        "under_band": float(place < 0),
        "head": tenths[0],
        "bulk": fmean(tenths[3:7]),
        "tail": tenths[9],
        "effective_rank": found.change.effective_rank,
    }


def with_random_signs(pair: Pair, finetuned: Path) -> dict[str, float]:
    """The measures of a control: the change of every matrix with random signs of its entries."""
    import torch

    from .lab import save

    base, model = load(pair.base).state_dict(), load(finetuned)
    dice = torch.Generator().manual_seed(pair.seed)
    with torch.no_grad():
        for name, W in model.named_parameters():
            signs = 2 * torch.randint(0, 2, W.shape, generator=dice) - 1
            W.copy_(base[name] + signs * (W - base[name]))
    out = pair.folder / "control"
    shutil.rmtree(out, ignore_errors=True)
    save(model, pair.tokenizer, out)
    found = moved(pair.base, [out])[0]
    shutil.rmtree(out)
    return found


def kl_to(base: Mapping[str, Tensor], model: Any, tokenizer: Any, count: int) -> dict[str, float]:
    """KL(base ‖ model) of the answers in nats: in domain, and the mean over the other rules."""
    found = {}
    for rule, before in base.items():
        after = log_probs(model, tokenizer, rule, count)
        found[rule] = float((before.exp() * (before - after)).sum(-1).mean())
    others = fmean(found[rule] for rule in sums.OUT_OF_DOMAIN)
    return {"kl": found[sums.IN_DOMAIN], "kl_out": others}


def log_probs(model: Any, tokenizer: Any, rule: str, count: int) -> Tensor:
    """Log probabilities (hands, words) of the answers to held-out hands, float64."""
    import torch

    from ..demo.evaluator import tensors

    questions, _ = tensors(tokenizer, rule, sums.deal(count, _SEED, "report"))
    with torch.inference_mode():
        logits = model(input_ids=questions, use_cache=False, logits_to_keep=1).logits[:, -1]
    return logits.double().log_softmax(-1)


_SEED = 2025
