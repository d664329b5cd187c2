"""The premise of RPSFT: is movement in the leading block the movement that hurts (arXiv 2605.10973)?

The sensitivity of the base to its weights is its diagonal Fisher information on the rules that the
fine-tuning does not show, in the coordinates of its own singular vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ...demo import sums
from .. import comparison, fisher
from ..comparison_page import claim_table, difference
from ..lab import Pair, load
from ..moved import TOP
from ..sizes import Sizes
from ..stage import Measured, Stage
from ..training import trained
from ..verdicts import claim, summary
from . import prevention

if TYPE_CHECKING:
    from torch import Tensor

_SEED = 2026
_FEWER = 3  # times fewer questions than hands that are asked, for the Fisher information
_STATES = 200  # prompts whose hidden states are compared
_SHARES = {
    "area": "of the coordinates",
    "energy": "of ‖Δ‖² of SFT",
    "information": "of the Fisher information",
    "weighted": "of the Fisher-weighted movement of SFT",
    "weighted_chance": "of that of a movement of the same size without structure",
}
_RANKS = {
    "rank_block": "the movement of the leading block",
    "rank_whole": "the movement of the whole matrix",
}
_CKA = {"sft": "SFT", "rpsft": "RPSFT"}


def measure(pair: Pair) -> None:
    """Measure the information of the base, and what SFT and RPSFT did to its representation."""
    tuned = {"sft": prevention.sft(pair), "rpsft": _rpsft(pair)}
    pair.once("fisher", lambda: _fisher(pair, tuned["sft"]))
    pair.once("states", lambda: _states(pair, tuned))
    for name, folder in tuned.items():
        pair.once(f"scores-{name}", partial(pair.scores, folder))


def _rpsft(pair: Pair) -> Path:
    """The checkpoint of RPSFT with its defaults, at the rate of SFT."""
    way = next(way for way in prevention.ways() if way.name == comparison.RPSFT)
    return pair.checkpoint("rpsft", lambda: trained(pair, way))


def _questions(pair: Pair, count: int) -> Tensor:
    """Questions (count, tokens) under the other rules, each rule as often."""
    import torch

    from ...demo.evaluator import tensors

    hands = sums.deal(count, _SEED, "report")
    places = range(len(sums.OUT_OF_DOMAIN))
    rules = zip(sums.OUT_OF_DOMAIN, (hands[place :: len(places)] for place in places), strict=True)
    return torch.cat([tensors(pair.tokenizer, rule, own)[0] for rule, own in rules])


def _fisher(pair: Pair, tuned: Path) -> dict[str, float]:
    base = load(pair.base)
    after = load(tuned).state_dict()
    weights = {name: W for name, W in base.named_parameters() if ".layers." in name and W.ndim == 2}
    coordinates = {name: fisher.Coordinates.of(W, TOP) for name, W in weights.items()}
    questions = _questions(pair, pair.sizes.hands // _FEWER)
    sensitive = fisher.fisher(base, questions, coordinates, pair.seed)
    changes = {name: after[name] - W.detach() for name, W in weights.items()}
    return fisher.shares(changes, coordinates, sensitive)


def _states(pair: Pair, tuned: Mapping[str, Path]) -> dict[str, float]:
    """Linear CKA with the base over the layers: the mean and that of the last one, by model."""
    from ...measure.hidden import measure_layers

    questions = _questions(pair, _STATES)
    before = _last_states(pair.base, questions)
    found: dict[str, float] = {}
    for name, folder in tuned.items():
        layers = measure_layers(before, _last_states(folder, questions))[1:]
        similar = [layer.cka or 0.0 for layer in layers]
        found |= {f"{name}_mean": fmean(similar), f"{name}_last": similar[-1]}
    return found


def _last_states(folder: Path, questions: Tensor) -> Tensor:
    """Hidden states (questions, layers + 1, width) of the last tokens."""
    import torch

    with torch.inference_mode():
        found = load(folder)(input_ids=questions, use_cache=False, output_hidden_states=True)
    return torch.stack([states[:, -1] for states in found.hidden_states], dim=1)


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """A row for each regime, and the claims."""
    rows, claims = [], []
    for regime in dict.fromkeys(each.regime for each in measured):
        pairs = [_flat(each.values) for each in measured if each.regime == regime]
        means = {key: summary([pair[key] for pair in pairs]) for key in pairs[0]}
        rows.append({"regime": regime, **means})
        claims += [
            claim(said, regime, [pair[first] - pair[second] for pair in pairs])
            for said, (first, second) in _CLAIMS.items()
        ]
    return {"rows": rows, "claims": claims}


# Said -> the two numbers of which the first is larger.
_CLAIMS = {
    "The leading block has more of the Fisher information than of the coordinates (share).":
        ("information", "area"),
    "SFT moves the leading block more than chance gives (share of ‖Δ‖²).": ("energy", "area"),
    "More of the Fisher-weighted movement of SFT lies in the leading block than of a movement of the"
    " same size without structure (share).": ("weighted", "weighted_chance"),
    "Most of the Fisher-weighted movement of SFT lies in the leading block (share less one half).":
        ("weighted", "half"),
    "The movement of its leading block ranks a matrix by its Fisher-weighted movement (ρ).":
        ("rank_block", "none"),
    "The leading block ranks matrices better than the whole movement does (difference of ρ).":
        ("rank_block", "rank_whole"),
    "RPSFT keeps the last layer's representation nearer to the base than SFT does (linear CKA).":
        ("rpsft_last", "sft_last"),
    "RPSFT keeps the representation nearer to the base than SFT does, over all layers (linear CKA).":
        ("rpsft_mean", "sft_mean"),
}  # fmt: skip


def _flat(values: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of a pair, and the constants that they are compared with."""
    scores = {
        f"{name}_{key}": values[f"scores-{name}"][key]
        for name in _CKA
        for key in ("in_domain", "out_of_domain")
    }
    return {**values["fisher"], **values["states"], **scores, "half": 0.5, "none": 0.0}


def section(found: Mapping[str, Any]) -> str:
    """The section of the page."""
    return "\n\n".join([claim_table(found["claims"]), *map(_regime, found["rows"])])


def _regime(row: Mapping[str, Any]) -> str:
    lines = [
        f"**{row['regime']}**: {sums.REGIMES[row['regime']]}.",
        "",
        "| | (95 %) |",
        "|---|---|",
    ]
    lines += [f"| in the leading block, {said} | {_plain(row[k])} |" for k, said in _SHARES.items()]
    lines += [
        f"| ρ over matrices of {said} with the Fisher-weighted movement | {_plain(row[key])} |"
        for key, said in _RANKS.items()
    ]
    for key, said in _CKA.items():
        pair = "in_domain", "out_of_domain"
        scores = " / ".join(f"{row[f'{key}_{each}']['mean']:.3f}" for each in pair)
        lines += [
            f"| {said}: in domain / out of domain | {scores} |",
            f"| {said}: CKA of the last layer | {_plain(row[f'{key}_last'])} |",
            f"| {said}: CKA over all layers | {_plain(row[f'{key}_mean'])} |",
        ]
    return "\n".join(lines)


def _plain(found: Mapping[str, Any]) -> str:
    return difference(found).replace("+", "")


def draw(found: Mapping[str, Any]) -> Any:
    """The figure of the stage."""
    from ..curves import bars

    labels = {
        **{key: said.removeprefix("of ").replace("of the ", "") for key, said in _SHARES.items()},
        "rank_block": "rho over matrices, block", "rank_whole": "rho over matrices, whole",
        "sft_last": "CKA of the last layer, SFT", "rpsft_last": "CKA of the last layer, RPSFT",
    }  # fmt: skip
    return bars(found["rows"], labels)


def rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with numbers and texts alone, for a CSV file."""
    flat = []
    for row in found["rows"]:
        one: dict[str, Any] = {"regime": row["regime"]}
        for key, said in row.items():
            if key not in ("regime", "half", "none"):
                low, high = said["interval_95"] or (None, None)
                one |= {key: said["mean"], f"{key}_low": low, f"{key}_high": high}
        flat.append({**one, "pairs": row["area"]["pairs"]})
    return flat


def sized(sizes: Sizes) -> str:
    """How many questions are asked."""
    return (
        "SFT and RPSFT are those of the prevention stage; Fisher information over"
        f" {sizes.hands // _FEWER} questions, hidden states of {_STATES}, both under the other rules."
    )


STAGE = Stage(
    name="premise",
    order=45,
    title="The premise of RPSFT",
    regimes=("part", "unseen"),
    measure=measure,
    summarise=summarise,
    section=section,
    draw=draw,
    rows=rows,
    sized=sized,
)
