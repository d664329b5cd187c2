"""Reads what lm-evaluation-harness writes: `results_DATE.json` and `samples_TASK_DATE.jsonl`.

Both lie in one folder for each model. Totals come from the first, items from the second; of several
runs in one folder the newest that has a task is taken. Perplexities are log-likelihoods in samples
(with their sign against `higher_is_better`), and pairs of a log-likelihood and a length where they
are rolling.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoint.bounded import read_json
from ..errors import InputRefused, listed
from .items import ItemTable, Pair
from .lines import FORCE, as_number, hand_of, json_lines
from .scores import NO_FILTER, Evaluated, Metric, Score, agrees, item_key

RESULTS_BYTES = 256 << 20
_DATE = re.compile(r".*_(\d{4}-\d\d-\d\dT[\d.-]+)\.json")
_NO_METRIC = {"alias", "name", "sample_len", "sample_count", "samples"}
_SCALES = {"perplexity": "perplexity", "word_perplexity": "perplexity",
           "byte_perplexity": "perplexity", "bits_per_byte": "bits"}  # fmt: skip
# Parts of a task's configuration that say what is asked; others hold the model's path.
_ASKED = (
    "dataset_path", "dataset_name", "test_split", "doc_to_text", "doc_to_target", "doc_to_choice",
    "description", "fewshot_split", "num_fewshot", "output_type", "generation_kwargs", "repeats",
    "filter_list", "target_delimiter", "fewshot_delimiter",
)  # fmt: skip
_OF_THE_RUN = {
    "limit": "limit", "chat_template_sha": "chat template", "fewshot_as_multiturn": "multiturn",
    "system_instruction_sha": "system instruction",
}  # fmt: skip
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of a function that was written as text


def results_files(folder: Path) -> list[Path]:
    """The results of every run in a folder, the newest first."""
    return sorted(folder.glob("results_*.json"), key=_date, reverse=True)


def _date(path: Path) -> str:
    found = _DATE.fullmatch(path.name)
    return found[1] if found else ""


def read_results(name: str, files: Sequence[Path], force: bool) -> Evaluated:
    """What one model's results and samples say.

    Args:
        files: the results of its runs, the newest first.
        force: leave out what is broken, and note it.

    Raises:
        InputRefused: a file cannot be read, or holds no score.
    """
    runs = [_Run(path, read_json(path, RESULTS_BYTES), force) for path in files]
    scores: dict[Metric, Score] = {}
    settings: dict[str, dict[str, str]] = {}
    groups: dict[str, list[str]] = {}
    notes: list[str] = []
    used = []
    for run in runs:
        fresh = [task for task in run.tasks() if task not in settings]
        for task in fresh:
            scores |= run.scores(task)
            settings[task] = run.settings(task)
        groups = run.groups() | groups
        used += [run] if fresh else []
        notes += run.notes
    if len(files) > 1:
        taken = listed([run.path.name for run in used], "file")
        notes.append(f"{len(files)} runs in {files[0].parent.name}: the newest of a task, {taken}")
    if not scores:
        do = "Name the folder of an evaluation that has finished."
        raise InputRefused(files[0], "holds no score", do)
    return Evaluated(name, str(files[0].parent), scores, settings, groups, notes)


class _Run:
    """One run of the harness."""

    def __init__(self, path: Path, data: Mapping[str, Any], force: bool) -> None:
        self.path, self.data, self.force = path, data, force
        self.notes: list[str] = []
        if not isinstance(data.get("results"), dict):
            do = "Name a folder of results that lm_eval wrote."
            raise InputRefused(path, "holds no results", do)

    def table(self, key: str) -> dict[str, Any]:
        """A table of the file; an empty one where there is none."""
        found = self.data.get(key)
        return found if isinstance(found, dict) else {}

    def tasks(self) -> list[str]:
        """Tasks and groups that have scores."""
        return [task for task, row in self.data["results"].items() if isinstance(row, dict)]

    def groups(self) -> dict[str, list[str]]:
        """The tasks of each group."""
        found = self.table("group_subtasks").items()
        return {group: list(map(str, tasks)) for group, tasks in found if isinstance(tasks, list)
                and tasks}  # fmt: skip

    def settings(self, task: str) -> dict[str, str]:
        """What another run of the task has to share to be comparable."""
        config, configs = self.table("config"), self.table("configs")
        found: dict[str, Any] = {
            "version": self.table("versions").get(task),
            "task hash": self.table("task_hashes").get(task),
            "examples": self.table("n-shot").get(task),
            "items": self.table("n-samples").get(task),
        }
        given = {key: (self.data if key in self.data else config).get(key) for key in _OF_THE_RUN}
        asked = configs.get(task)
        chosen = (
            {key: asked[key] for key in _ASKED if key in asked} if isinstance(asked, dict) else {}
        )
        told = {key: _as_text(value) for key, value in found.items() if value is not None}
        told |= {_OF_THE_RUN[key]: _as_text(value) for key, value in given.items()}
        return told | {key: _as_text(value) for key, value in chosen.items()}

    def scores(self, task: str) -> dict[Metric, Score]:
        """Every metric of a task.

        Raises:
            InputRefused: the task has no items, or samples are broken, and not `force`.
        """
        if self._count(task) == 0:
            if not self.force:
                raise InputRefused(self.path, f"{task} was asked 0 items", FORCE)
            self.notes.append(f"{task}: 0 items, left out")
            return {}
        totals = self._totals(task)
        samples = self.path.parent / f"samples_{task}_{_date(self.path)}.jsonl"
        if "/" in task or not samples.is_file():
            if task not in self.groups():
                self.notes.append(f"{task}: no samples, only totals (lm_eval run --log_samples)")
            return totals
        items = self._items(samples, task, totals)
        lost = [metric for metric in totals if metric not in items]
        caveat = "its samples hold no number for each item"
        return items | {metric: replace(totals[metric], caveat=caveat) for metric in lost}

    def _totals(self, task: str) -> dict[Metric, Score]:
        row, found = self.data["results"][task], {}
        count = self._count(task)
        for key, value in row.items():
            name, _, kept = str(key).partition(",")
            if name in _NO_METRIC or name.endswith("_stderr") or as_number(value) is None:
                continue
            kept = kept or NO_FILTER
            error = as_number(row.get(f"{name}_stderr,{kept}", row.get(f"{name}_stderr")))
            found[Metric(task, name, kept)] = total(
                as_number(value), int(count or 0), error, self._is_better(task, name)
            )
        return found

    def _count(self, task: str) -> float | None:
        """How many items a task was asked; None where the file does not say."""
        samples, row = self.table("n-samples").get(task), self.data["results"][task]
        told = samples.get("effective") if isinstance(samples, dict) else row.get("sample_len")
        return as_number(told)

    def _is_better(self, task: str, name: str) -> bool | None:
        """Whether a higher value is better."""
        told = self.table("higher_is_better").get(task)
        found = told.get(name) if isinstance(told, dict) else None
        return found if isinstance(found, bool) else None

    def _items(self, path: Path, task: str, totals: Mapping[Metric, Score]) -> dict[Metric, Score]:
        """The scores that the samples of a task give."""
        names: dict[str, list[str]] = {}
        for metric in totals:
            names.setdefault(metric.filter, []).append(metric.name)
        tables = self._tables(path, names)
        found: dict[Metric, Score] = {}
        for kept, table in tables.items():
            scores = table.scores(
                path,
                self.force,
                self.notes,
                lambda name: _SCALES.get(name, "mean"),
                lambda name: self._is_better(task, name),
            )
            for name, score in scores.items():
                metric = Metric(task, name, kept)
                found[metric] = self._agreeing(score, totals[metric])
        return found

    def _tables(self, path: Path, names: Mapping[str, Sequence[str]]) -> dict[str, ItemTable]:
        """The values of each metric by the filter, of those whose samples are numbers.

        Args:
            names: of the metrics, by filter.
        """
        tables: dict[str, ItemTable] = {}
        odd: set[tuple[str, str]] = set()
        lines = 0
        for line in json_lines(path, self.force, self.notes):
            lines += 1
            kept = str(line.get("filter", NO_FILTER))
            values: dict[str, float | Pair | None] = {}
            for name in names.get(kept, ()):
                values[name] = _value(line.get(name))
                is_pair = isinstance(values[name], tuple)
                if (is_pair and name not in _SCALES) or (values[name] is None and line.get(name)):
                    odd.add((kept, name))
            key = item_key(line.get("doc_id"), *_hashes(line))
            tables.setdefault(kept, ItemTable()).add(key, hand_of(line), values)
        if not lines:
            do = "Run the evaluation again with at least one item, or remove the file."
            raise InputRefused(path, "holds no items", do)
        for kept, name in odd:
            del tables[kept].values[name]
        return tables

    def _agreeing(self, score: Score, told: Score) -> Score:
        """The score of the items; the total alone where it is not what the items give."""
        if told.count != score.count or agrees(told, score):
            return score
        return replace(told, caveat="the total is not the mean of its samples")


def total(
    value: float | None, count: int, error: float | None, higher_is_better: bool | None
) -> Score:
    """A score of which only the total is known; a NaN is no score.

    A metric of 0 and 1 is known by its standard error, √(p(1 − p)/(n − 1)).
    """
    if value is None or value != value or abs(value) == float("inf"):
        return Score(None, count, None, None, higher_is_better)
    error = error if error is not None and error == error else None
    successes = None
    if count > 1 and 0 <= value <= 1 and abs(value * count - round(value * count)) < 1e-6 * count:
        expected = (value * (1 - value) / (count - 1)) ** 0.5
        if error is not None and abs(error - expected) <= 1e-3 * expected + 1e-12:
            successes = round(value * count)
    return Score(value, count, error, successes, higher_is_better)


def _as_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return _ADDRESS.sub("", text)


def _hashes(line: Mapping[str, Any]) -> tuple[str, str]:
    """The hashes of question and prompt; old versions of the harness write neither."""
    doc, prompt = line.get("doc_hash"), line.get("prompt_hash")
    return (
        doc if isinstance(doc, str) else _as_text(line.get("doc")),
        prompt if isinstance(prompt, str) else _as_text(line.get("arguments")),
    )


def _value(value: Any) -> float | Pair | None:
    """A number, or the pair of a rolling metric; None for anything else."""
    if isinstance(value, list) and len(value) == 2:
        first, second = map(as_number, value)
        return None if first is None or second is None else (first, second)
    return as_number(value)
