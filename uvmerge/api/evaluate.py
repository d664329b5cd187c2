"""`uvmerge eval cards`: several attempts at each hand, with the verifier's sentence fed back.

Source: the protocol of arXiv 2501.17161, with 234 hands under each rule and up to five attempts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import counted
from ..output.places import Reference
from ..tasks import hands, prompts
from ..text import table
from .asking import UNRECORDED, checked_out, identity, opened
from .asking_settings import EvalSettings
from .attempts import Attempt, Attempts, Item
from .kept import write_results
from .settings import shows

if TYPE_CHECKING:
    from ..hub.endpoint import Endpoint
    from ..models.chat import LocalModel

_ROUND = 512  # chats that are prepared at a time


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation.

    Attributes:
        model: what was asked: a label and its files, or an address.
        settings: how it was asked.
        samples: one row for each hand: `task`, `doc_id`, `doc_hash`, `prompt_hash`, `unordered`, the
            number of attempts, and the metrics, which are 0 or 1.
        asked: how many answers were asked for in this run, the others were there.
        out: the folder with the attempts, or None.
    """

    model: dict[str, Any]
    settings: dict[str, Any]
    samples: list[dict[str, Any]]
    asked: int
    out: Path | None

    def as_data(self) -> dict[str, Any]:
        """Everything but the samples, as JSON-able data."""
        tasks = list(dict.fromkeys(sample["task"] for sample in self.samples))
        return {
            "model": self.model, "settings": self.settings,
            "tasks": {task: self._scores(task) for task in tasks},
            "asked": self.asked, "out": None if self.out is None else str(self.out),
        }  # fmt: skip

    def __str__(self) -> str:
        last = f"success@{self.settings['attempts']}"
        names = list(dict.fromkeys(["success@1", last, "published@1", "format_error@1"]))
        rows = []
        for task, scores in self.as_data()["tasks"].items():
            cells = [_with_interval(scores[name]) for name in names]
            rows.append([task, scores["hands"], *cells])
        header = ["task", "hands", *(f"{name} (95 %)" for name in names)]
        return table(header, rows, "hands")

    def _scores(self, task: str) -> dict[str, Any]:
        samples = [sample for sample in self.samples if sample["task"] == task]
        return {
            "hands": len(samples),
            "unordered_hands": len({sample["unordered"] for sample in samples}),
            **_shares(samples),
        }


def _shares(samples: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each metric how often it is 1, with the intervals that `uvmerge compare` gives it."""
    import numpy as np  # not for `--help`, which imports this module

    from ..tasks import statistics

    names = [key for key in samples[0] if "@" in key]
    values = np.array([[sample[name] for name in names] for sample in samples], dtype=np.float64)
    clusters = [sample["unordered"] for sample in samples]
    draws = None
    if len(set(clusters)) < len(clusters):
        draws = statistics.resampled(values, np.ones((len(values), 1)), clusters)
    shares: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(names):
        right, total = int(values[:, place].sum()), len(values)
        wilson, by_hand = list(statistics.wilson(right, total)), None
        if draws is not None:
            by_hand = list(statistics.by_cluster(draws[:, place], clusters, right) or ()) or None
        shares[name] = {
            "right": right, "share": right / total, "wilson": wilson, "by_hand": by_hand
        }  # fmt: skip
    return shares


def _with_interval(score: Mapping[str, Any]) -> str:
    """A share and its interval, by hand where some hand is asked in several orders."""
    low, high = score["by_hand"] or score["wilson"]
    return f"{score['share']:.3f} ({low:.3f}-{high:.3f})"


@shows(EvalSettings, watched=False)
def evaluate_cards(
    model: Reference, *, out: Reference | None = None, quiet: bool = True, **settings: Any
) -> Evaluation:
    """Ask a model the hands of the card game, several times each until its answer is right.

    After a wrong answer the model is told what is wrong with it. With `out`, every answer is written at
    once, and the same call resumes where it was stopped; without, nothing is kept.

    Args:
        model: a checkpoint folder, a Hub id, or the base URL of an OpenAI-compatible endpoint.
        out: the folder for `attempts.jsonl`, `samples.jsonl` and `results.json`.
        quiet: print no progress.
        settings: as in docs/options.md.

    Raises:
        InputRefused: the model cannot be run, or `out` holds something else.
        RunFailed: the endpoint or the model fails; with `out`, the same call resumes.
        UsageError: a setting makes no sense.
    """
    chosen = EvalSettings.read(settings)
    target = None if out is None else checked_out(out, [model])
    about, folder = identity(str(model), chosen)
    rules = list(hands.RULES) if chosen.rule == "both" else [chosen.rule]
    attempts = Attempts([Item(rule, n) for rule in rules for n in range(chosen.hands)])
    recorded = {k: v for k, v in asdict(chosen).items() if k not in UNRECORDED}
    if target is None:
        asked = _ask(attempts, str(model), folder, chosen, quiet)
        return Evaluation(about, recorded, _samples(attempts, chosen), asked, None)
    with attempts.kept_in(
        target, {"eval": "cards", "version": 1, "model": about, **recorded}
    ) as root:
        asked = _ask(attempts, str(model), folder, chosen, quiet)
        done = Evaluation(about, recorded, _samples(attempts, chosen), asked, target)
        results = {k: v for k, v in done.as_data().items() if k not in ("asked", "out")}
        write_results(root, done.samples, results)
    return done


def _ask(attempts: Attempts, model: str, folder: Path, settings: EvalSettings, quiet: bool) -> int:
    """Make all attempts that are missing; returns how many were made."""
    from ..engine.progress import Progress

    progress, asked = Progress(quiet=quiet), 0
    if not any(attempts.pending(number) for number in range(1, settings.attempts + 1)):
        return 0
    with opened(model, folder, settings) as answering:
        for number in range(1, settings.attempts + 1):
            items = attempts.pending(number)
            if items:
                progress.say(f"attempt {number}: {counted(len(items), 'hand')}")
            for start in range(0, len(items), _ROUND):
                asked += _round(attempts, items[start : start + _ROUND], answering, settings)
    return asked


def _round(
    attempts: Attempts, items: Sequence[Item], answering: LocalModel | Endpoint,
    settings: EvalSettings,
) -> int:  # fmt: skip
    """Make one attempt at each item."""
    made = [attempts.of[item] for item in items]
    chats = [
        prompts.chat(item.hand, [(each.answer, each.verdict) for each in before])
        for item, before in zip(items, made)
    ]
    seeds = [item.seed(settings.seed, len(before) + 1) for item, before in zip(items, made)]
    limits: Mapping[str, Any] = {
        "max_tokens": settings.max_tokens, "temperature": settings.temperature,
        "stop": prompts.STOP,
    }  # fmt: skip
    for number, answer in answering.answers(chats, seeds, **limits):
        attempt = Attempt(items[number], len(made[number]) + 1, seeds[number], answer)
        attempts.add(attempt)
    return len(items)


def _samples(attempts: Attempts, settings: EvalSettings) -> list[dict[str, Any]]:
    """One row for each hand."""
    rows = []
    for item, made in attempts.of.items():
        first, last = made[0].verdict, made[-1].verdict
        rows.append(
            {
                "task": f"uvmerge_cards_{item.rule}", "doc_id": item.doc_id,
                **prompts.hashes(item.hand), "unordered": item.hand.unordered,
                "attempts": len(made),
                "success@1": int(first.ok), f"success@{settings.attempts}": int(last.ok),
                "published@1": int(first.published),
                "format_error@1": int(first.reason == "format"),
            }
        )  # fmt: skip
    return rows
