"""What came of `uvmerge eval ccci`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..text import table

_SHARES = ("build_pass", "compiles")
_MEANS = ("codebleu", "bleu4", "edit_similarity", "exact_match")


@dataclass(frozen=True)
class CcciEvaluation:
    """What came of an evaluation on Java code.

    Attributes:
        model: what was asked: a fixed completer, a label and its files, or an address.
        settings: how it was asked.
        samples: one row for each hole: `task`, `doc_id`, `id`, `family`, `needs`, the code, and the
            metrics, each between 0 and 1.
        missing: of each metric that could not be measured, why, and what to do.
        sandbox: what the tests ran in: `bwrap`, `unshare` (which hides the network and other processes
            alone), `none`; None where they did not run.
        asked: how many answers were asked for in this run, the others were there.
        seconds: how long it took.
        out: the folder with the answers, or None.
    """

    model: dict[str, Any]
    settings: dict[str, Any]
    samples: list[dict[str, Any]]
    missing: dict[str, str]
    sandbox: str | None
    asked: int
    seconds: float
    out: Path | None

    @property
    def skipped(self) -> int:
        """How many holes were not tested."""
        return sum("build_pass" not in sample for sample in self.samples)

    def as_data(self) -> dict[str, Any]:
        """Everything but the samples, as JSON-able data."""
        return {
            **_scores(self.samples), "skipped": self.skipped, "missing": self.missing,
            "sandbox": self.sandbox,
            "seconds": round(self.seconds, 3), "model": self.model, "settings": self.settings,
            "kinds": self.kinds(), "families": self.families(),
            "asked": self.asked, "out": None if self.out is None else str(self.out),
        }  # fmt: skip

    def kinds(self) -> dict[str, Any]:
        """The scores of the holes that need each kind of context."""
        named = dict.fromkeys(kind for sample in self.samples for kind in sample["needs"])
        return {k: _scores([s for s in self.samples if k in s["needs"]]) for k in named}

    def families(self) -> dict[str, Any]:
        """The scores of the holes of each family."""
        named = dict.fromkeys(sample["family"] for sample in self.samples)
        return {f: _scores([s for s in self.samples if s["family"] == f]) for f in named}

    def __str__(self) -> str:
        whole = self.as_data()
        rows = [("all", whole)]
        rows += [(f"need {kind}", scores) for kind, scores in whole["kinds"].items()]
        rows += whole["families"].items()
        header = ["holes", "n", "build pass (95 %)", "CodeBLEU", "BLEU-4", "edit", "exact"]
        shown = table(header, [[name, s["n"], _build(s), *_means(s)] for name, s in rows], "holes")
        notes = [f"{name} is not measured: {why}" for name, why in self.missing.items()]
        skipped = [f"skipped: {self.skipped} of {len(self.samples)} holes"] if self.skipped else []
        if self.sandbox not in (None, "bwrap"):
            notes.append(f"tests ran with the sandbox {self.sandbox}: files were in their reach")
        return "\n".join([shown, *skipped, *notes])


def _scores(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares, the Wilson interval of the first, and means."""
    from ..tasks.statistics import wilson  # not for `--help`, which imports this module

    scores: dict[str, Any] = {"n": len(samples)}
    for name in (*_SHARES, *_MEANS):
        values = [sample[name] for sample in samples if name in sample]
        if values:
            scores[name] = sum(values) / len(values)
        if values and name == "build_pass":
            scores["wilson"] = list(wilson(sum(values), len(values)))
    return scores


def _build(scores: dict[str, Any]) -> str:
    if "build_pass" not in scores:
        return "skipped"
    low, high = scores["wilson"]
    return f"{scores['build_pass']:.3f} ({low:.3f}-{high:.3f})"


def _means(scores: dict[str, Any]) -> Sequence[str]:
    return [f"{scores[name]:.3f}" if name in scores else "-" for name in _MEANS]
