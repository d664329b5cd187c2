"""The page of the study in Markdown, which is made from the results alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import counted
from ..text import duration
from .kinds import KINDS, trained_words
from .sizes import Sizes
from .stage import stages
from .verdicts import CANNOT_TELL, NOT_SEEN, SEEN

_PAPERS = (
    "How this differs from the papers: their models have billions of parameters, ours have 0.8 million"
    " (`larger`: four times as many); they fine-tune for thousands of steps on reasoning in words and"
    " images with answers of hundreds of tokens, here a hundred to some hundreds of steps teach how"
    " cards add up, and the answer is one token; their bases were trained on much of the web, ours on"
    " nothing but the rules; their RL samples whole solutions, ours single tokens; and out of domain"
    " is here a rule that the fine-tuning does not show, which the base knows almost perfectly. A"
    " claim that is not seen here may hold there, and one that is seen here need not."
)
_MACHINE = ("system", "processor", "cores")
_QUICK = (
    "**This is a quick study**: few pairs, whose bases were trained briefly, short fine-tunings and"
    " few hands. It shows that everything runs. Its verdicts are those of such models."
)
_MEANING = (
    f"A verdict follows from the 95 % t-interval over pairs of a difference that the claim says is"
    f" positive: *{SEEN}* if all of it is above 0, *{NOT_SEEN}* if all of it is below, and"
    f" *{CANNOT_TELL}* if it holds 0 or there are under three pairs. No correction is made for the"
    " number of claims: about one in twenty would exclude 0 by chance."
)


def page(found: Mapping[str, Any]) -> str:
    """The page of a study from its results; a figure has the name of its stage."""
    parts = ["# The study", conditions(found)]
    parts += [_QUICK] if found["sizes"]["quick"] else []
    parts += [_PAPERS, _MEANING, _overview(found["stages"])]
    sizes = Sizes(**found["sizes"])
    for name, summary in found["stages"].items():
        stage = stages()[name]
        parts += [
            f"## {stage.title}",
            f"![{stage.title}]({name}.png)",
            stage.section(summary),
            f"{stage.sized(sizes)} CPU time: {duration(summary['cpu_s'])}.".lstrip(),
        ]
    return "\n\n".join(parts) + "\n"


def _overview(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How many claims of each stage were seen."""
    words = (SEEN, NOT_SEEN, CANNOT_TELL)
    lines = [
        f"| part | claims, by regime | {' | '.join(words)} | pairs | CPU time |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, summary in found.items():
        claims = claims_of(summary)
        counts = [sum(one["verdict"] == word for one in claims) for word in words]
        lines.append(
            f"| [{stages()[name].title}](#{_anchor(stages()[name].title)}) | {len(claims)} |"
            f" {' | '.join(map(str, counts))} | {len(summary['pairs'])} |"
            f" {duration(summary['cpu_s'])} |"
        )
    total = sum(summary["cpu_s"] for summary in found.values())
    pairs = {(p["regime"], p["seed"]) for s in found.values() for p in s["pairs"]}
    told = f"In all {counted(len(pairs), 'pair')} and {duration(total)} of CPU time."
    return "\n".join([*lines, "", told])


def claims_of(summary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """All claims of a stage, rank correlations among them."""
    return [*summary["claims"], *summary.get("correlations", [])]


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


def conditions(found: Mapping[str, Any]) -> str:
    """What was measured, where and with which versions, in one paragraph."""
    seen = {pair["regime"] for one in found["stages"].values() for pair in one["pairs"]}
    trained = trained_words([name for name in KINDS if name in seen], found["sizes"]["quick"])
    return (
        "Pairs of Llamas of 0.8 M parameters that add up cards (`uvmerge.demo`), one pair for each"
        f" seed, trained with AdamW and a cosine schedule, and asked {found['sizes']['hands']} held-out"
        f" hands under each rule. The pairs: {trained}. Measured on {_machines(found['machines'])}."
    )


def _machines(found: Sequence[Mapping[str, Any]]) -> str:
    """The machines with the versions on them; where there are several, how many pairs each has seen."""
    said = []
    for machine in found:
        own = {name: value for name, value in machine.items() if name not in (*_MACHINE, "pairs")}
        versions = ", ".join(f"{name} {version}" for name, version in own.items())
        processor = f" ({machine['processor']}, {machine['cores']} cores)"
        pairs = f": {counted(machine['pairs'], 'pair')}" if len(found) > 1 else ""
        said.append(f"{machine['system']}{processor}, one thread a process, {versions}{pairs}")
    return "; ".join(said)
