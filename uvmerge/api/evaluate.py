"""`uvmerge eval cards`: several attempts at each hand, with the verifier's sentence fed back.

Source: the protocol of arXiv 2501.17161, with 234 hands under each rule and up to five attempts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ..errors import UsageError, counted
from ..hub import endpoint
from ..operations.options import MACHINE, Option
from ..output.places import Reference, check_apart, local_folders, refuse_read_only, target_of
from ..tasks import hands, prompts
from ..text import table
from .attempts import RESULTS, SAMPLES, Attempt, Attempts, Item
from .opening import open_checkpoint
from .settings import Declared, OpenSettings, parse_device, shows

if TYPE_CHECKING:
    from ..hub.endpoint import Endpoint
    from ..models.chat import LocalModel

_UNRECORDED = ("device", "batch", "timeout")  # a run may be resumed with others
_ROUND = 512  # chats that are prepared at a time


@dataclass(frozen=True)
class EvalSettings(Declared):
    """How a model is asked."""

    rule: Annotated[
        Literal["id", "ood", "both"],
        Option("J, Q and K count 10 (id), 11, 12 and 13 (ood), or each hand set in turn (both)"),
    ] = "both"
    hands: Annotated[int, Option("hands asked under each rule", 1, hands.LARGE, metavar="N")] = (
        hands.PUBLISHED
    )
    attempts: Annotated[int, Option("answers to a hand, until one is right", 1, 20)] = 5
    max_tokens: Annotated[int, Option("length of an answer, in tokens", 1, 2**20)] = 512
    temperature: Annotated[float, Option("0 for the likeliest token at every step", 0, 10)] = 0.0
    seed: Annotated[int, Option("seed of all draws", 0, 2**31 - 1)] = 0
    batch: Annotated[
        int, Option("answers generated, or requests sent, at the same time", 1, 4096)
    ] = 16
    model_name: Annotated[
        str | None, Option("name of the model at an endpoint that serves several")
    ] = None
    timeout: Annotated[float, Option("seconds to wait for an endpoint's answer", 1, 86400)] = 600.0
    device: Annotated[
        str,
        Option("where to run a local model: auto, cpu, cuda or cuda:N", parse=parse_device,
               accepts="str", metavar="DEVICE", group=MACHINE),
    ] = "auto"  # fmt: skip


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
    target = None if out is None else _checked_out(out, model)
    about, folder = _identity(str(model), chosen)
    rules = list(hands.RULES) if chosen.rule == "both" else [chosen.rule]
    attempts = Attempts([Item(rule, n) for rule in rules for n in range(chosen.hands)])
    recorded = {k: v for k, v in asdict(chosen).items() if k not in _UNRECORDED}
    if target is None:
        asked = _ask(attempts, str(model), folder, chosen, quiet)
        return Evaluation(about, recorded, _samples(attempts, chosen), asked, None)
    with attempts.kept_in(
        target, {"eval": "cards", "version": 1, "model": about, **recorded}
    ) as root:
        asked = _ask(attempts, str(model), folder, chosen, quiet)
        done = Evaluation(about, recorded, _samples(attempts, chosen), asked, target)
        lines = "".join(f"{json.dumps(sample)}\n" for sample in done.samples)
        root.write_whole(SAMPLES, lines.encode())
        results = {k: v for k, v in done.as_data().items() if k not in ("asked", "out")}
        text = json.dumps(results, indent=2, allow_nan=False)
        root.write_whole(RESULTS, f"{text}\n".encode())
    return done


def _checked_out(out: Reference, model: Reference) -> Path:
    """The real path of OUT, which is a folder or can become one."""
    target = target_of(out)
    check_apart(target, local_folders([model]))
    there = next(path for path in (target, *target.parents) if path.exists())
    if not there.is_dir():
        raise UsageError(out, "is a file", "Name a folder.")
    refuse_read_only(out, there)
    return target


def _identity(model: str, settings: EvalSettings) -> tuple[dict[str, Any], Path]:
    """What identifies the model in the records, and the folder where it lies if it is local."""
    if endpoint.is_address(model):
        return {"url": model, "name": settings.model_name}, Path()
    if settings.model_name is not None:
        raise UsageError("--model-name", "is for the address of an endpoint", "Leave it out.")
    with open_checkpoint(model, OpenSettings()) as checkpoint:
        about = {
            "label": checkpoint.label, "commit": checkpoint.commit, "files": checkpoint.states()
        }  # fmt: skip
        return about, checkpoint.on_disk()


def _ask(attempts: Attempts, model: str, folder: Path, settings: EvalSettings, quiet: bool) -> int:
    """Make all attempts that are missing; returns how many were made."""
    from ..engine.progress import Progress

    progress, asked = Progress(quiet=quiet), 0
    if not any(attempts.pending(number) for number in range(1, settings.attempts + 1)):
        return 0
    with _opened(model, folder, settings) as answering:
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


@contextmanager
def _opened(model: str, folder: Path, settings: EvalSettings) -> Iterator[LocalModel | Endpoint]:
    """The model, ready to answer."""
    if endpoint.is_address(model):
        with endpoint.opened(
            model, settings.model_name, at_once=settings.batch, timeout_s=settings.timeout
        ) as opened:
            yield opened
        return
    from ..engine.reading import resolve_devices
    from ..models.chat import LocalModel

    yield LocalModel.load(folder, resolve_devices(settings.device)[0], settings.batch)


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
