"""Which way of merging two fine-tunes of one base keeps both tasks? A study on models of the demo.

    python benchmarks/two_tasks.py FOLDER --seeds 10 --jobs 8 [--docs docs/merges.md]

Each seed is a base that knows card sums, the embedded one for seed 0, and two fine-tunes of it: `ten`
continues on one rule alone, as the demo does; `five` learns a rule that the base has never seen (face cards
count 5; `=` stands in the place of the rule word), with as many hands of the base's other rules. Every way
of merging is asked both rules and the base's others, with each of its settings. The setting is chosen on
one half of the held-out hands, per seed and way, and reported on the other half.

The script may be stopped, and goes on when it is called again: FOLDER keeps what is trained and measured.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measure import about, write_result

import uvmerge
from uvmerge.demo import sums
from uvmerge.errors import UvmergeError
from uvmerge.operations import get, operations
from uvmerge.study.docs import marked
from uvmerge.study.lab import Lab, Pair, answered, load
from uvmerge.study.sizes import FULL, Sizes
from uvmerge.tasks.statistics import holm

Data = dict[str, Any]
STAGE = "merging"
NEW, OLD = "=", ("rank", "low", "zero")  # the rule word of `five`; the rules of the base
HALVES = ("search", "report")
SCALES = (1.0, 0.3, 0.5, 0.7, 1.4, 2.0)
SHARES = ((0.5, 0.5), (0.7, 0.3), (0.3, 0.7))
AFTER_BASE = tuple((1.0, *share) for share in SHARES)  # the weight of the base counts for nothing
BASELINE = "task-arithmetic"
HANDS = 300  # under each rule, of each half


# --- ways of merging ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A way of merging, and its settings.

    Attributes:
        operation: name of the command.
        options: what every setting has.
        varied: the option that the settings differ in, and its values; the first is the default.
        inputs: which checkpoints it takes, and in which order.
    """

    operation: str
    options: Mapping[str, Any] = field(default_factory=dict)
    varied: tuple[str, tuple[Any, ...]] = ("scale", SCALES)
    inputs: tuple[str, ...] = ("base", "ten", "five")

    @property
    def name(self) -> str:
        """The command as it is typed, without what the settings differ in."""
        words = (
            f"--{k.replace('_', '-')}{'' if v is True else f' {v}'}"
            for k, v in self.options.items()
        )
        return " ".join([self.operation, *words])

    @property
    def settings(self) -> dict[str, Data]:
        """Options by the name of the setting, the default first."""
        option, values = self.varied
        return {
            f"--{option} {'/'.join(map(str, v)) if isinstance(v, tuple) else v}".replace("_", "-")
            if option else "": {**self.options, **({option: v} if option else {})}
            for v in values
        }  # fmt: skip


ONLY = ("", (None,))
BETWEEN, FROM_ONE = ("ten", "five"), ("ten", "five")
HALF = {"density": 0.5}
WAYS = (
    Way("task-arithmetic"), Way("task-arithmetic", {"scale": 2.0}, ("weight", SHARES)),
    Way("linear", varied=("weight", SHARES), inputs=BETWEEN),
    Way("slerp", varied=("t", (0.5, 0.3, 0.7)), inputs=BETWEEN),
    Way("nuslerp", varied=("weight", SHARES), inputs=BETWEEN),
    Way("nuslerp", {"deltas": True}, ("weight", AFTER_BASE)),
    Way("multislerp", varied=("weight", SHARES), inputs=BETWEEN),
    Way("multislerp", {"deltas": True}, ("weight", AFTER_BASE)),
    Way("karcher", varied=ONLY, inputs=BETWEEN),
    Way("ties"), Way("ties", HALF), Way("ties", {"density": 0.2}),
    Way("dare-linear", HALF), Way("dare-ties", HALF),
    Way("della", HALF), Way("della-linear", HALF),
    Way("breadcrumbs", {"density": 0.9}), Way("breadcrumbs-ties", {"density": 0.9}),
    Way("model-stock", varied=ONLY),
    Way("sce", varied=("select_topk", (1.0, 0.5, 0.2))),
    Way("nearswap", varied=("t", (1e-4, 1e-3, 1e-2)), inputs=FROM_ONE),
    Way("arcee-fusion", varied=ONLY, inputs=FROM_ONE),
    Way("tsv"), Way("iso-c"), Way("iso-cts"),
    Way("knots"), Way("knots", {"density": 0.2}),
    Way("subspace-boosting"), Way("subspace-boosting", {"share": 0.2}),
    Way("svc"), Way("svc", {"method": "ties"}), Way("svc", {"method": "tsv"}),
)  # fmt: skip


def left_out() -> set[str]:
    """Ways of merging that the study does not ask: those of one model alone."""
    asked = {way.operation for way in WAYS}
    return {name for name, each in operations().items() if each.takes_several} - asked


# --- training and asking -----------------------------------------------------------------------


def answer(rule: str, hand: sums.Hand) -> str:
    """The right answer under a rule of the base, or under the new one."""
    if rule != NEW:
        return sums.answer(rule, hand)
    return str(sum(5 if card in sums.FACES else sums.RULES["zero"][card] for card in hand))


TASK = SimpleNamespace(
    IN_DOMAIN=sums.IN_DOMAIN, OUT_OF_DOMAIN=(NEW, *OLD), HAND_SIZE=sums.HAND_SIZE, answer=answer,
    encode=lambda rule, hand: " ".join((rule, *hand, "=")),
)  # fmt: skip


def tuned(pair: Pair, hands: Mapping[str, int]) -> tuple[Any, Data]:
    """The base trained further, with so many hands of each rule in a step."""
    import torch

    from uvmerge.demo.train import Course, _Dealer, fit

    schedule, model = pair.schedule, load(pair.base)
    dealer = _Dealer(pair.tokenizer, schedule.finetuning.seed)
    faces = torch.tensor([5 if card in sums.FACES else 0 for card in sums.RANKS])
    dealer.counts[NEW] = dealer.counts["zero"] + faces
    share = {rule: count * schedule.batch // 192 for rule, count in hands.items()}
    course = Course(share, schedule.finetune_steps, 3e-4, schedule.finetuning.seed)
    fit(model, pair.tokenizer, course, dealer=dealer)
    return model, {}


def checkpoints(pair: Pair) -> dict[str, Path]:
    """The base, both fine-tunes, and what training on both tasks at once gives."""
    old, mixed = dict.fromkeys(OLD, 32), dict.fromkeys(OLD, 16)
    return {
        "base": pair.base,
        "ten": pair.finetuned,
        "five": pair.checkpoint("five", lambda: tuned(pair, {NEW: 96, **old})),
        "both": pair.checkpoint(
            "both", lambda: tuned(pair, {sums.IN_DOMAIN: 96, NEW: 48, **mixed})
        ),
    }


def scores(pair: Pair, folder: Path) -> Data:
    """By half of the hands, the accuracies under `ten`, under the new rule, and under the base's others."""
    model, found = load(folder), {}
    for half in HALVES:
        right = answered(model, pair.tokenizer, pair.hands(half), TASK).right
        ten, five, *old = right.double().mean(1).tolist()
        found[half] = [ten, five, statistics.mean(old)]
    return found


def merged(pair: Pair, folders: Mapping[str, Path], way: Way, options: Data) -> Data:
    """The scores of a merge, which is removed again."""
    out = pair.folder / "merged"
    shutil.rmtree(out, ignore_errors=True)
    merge = getattr(uvmerge, get(way.operation).name)
    merge(
        *(folders[name] for name in way.inputs),
        out,
        workers=1,
        quiet=True,
        overwrite=True,
        **options,
    )
    found = scores(pair, out)
    shutil.rmtree(out)
    return found


def measure(folder: Path, sizes: Sizes, seed: int) -> Data:
    """Everything of one seed: the scores of each model, and of each way in each of its settings."""
    with Lab(folder, sizes).opened("part", seed, STAGE) as pair:
        pair.once("training", lambda: list(checkpoints(pair)))
        folders = checkpoints(pair)
        models = {name: pair.once(name, partial(scores, pair, at)) for name, at in folders.items()}
        ways: dict[str, Data] = {}
        for way in WAYS:
            ways[way.name] = {
                setting: pair.once(f"{way.name} {setting}", partial(merged, pair, folders, way, options))
                for setting, options in way.settings.items()
            }  # fmt: skip
        spent = sum(entry["cpu_s"] for entry in pair.journal.entries.values())
        return {"seed": seed, "cpu_s": round(spent, 1), "models": models, "ways": ways}


def measured(folder: Path, sizes: Sizes, seed: int) -> Data:
    """As `measure`, with errors that go from process to process."""
    try:
        return measure(folder, sizes, seed)
    except UvmergeError as error:
        raise RuntimeError(f"seed {seed}: {error}") from None


# --- what was found ----------------------------------------------------------------------------


def both(found: Data, half: str) -> float:
    """The mean accuracy of the two tasks."""
    return statistics.mean(found[half][:2])


def chosen(settings: Mapping[str, Data]) -> str:
    """The setting with the best mean of both tasks on the hands of the search; the first of equal ones."""
    return max(settings, key=lambda name: both(settings[name], "search"))


def interval(values: Sequence[float]) -> Data:
    """The mean, and half of its 95 % t-interval; None for a single value."""
    from scipy import stats

    if len(values) < 2:
        return {"mean": round(values[0], 4), "half_of_interval_95": None}
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return {"mean": round(statistics.mean(values), 4), "half_of_interval_95": round(half, 4)}


def told(rows: Sequence[Data]) -> Data:
    """The accuracies of a row of the table, from its scores of each seed on the hands of the report."""
    reported = [row["report"] for row in rows]
    names = ("ten", "five", "old")
    found = {name: interval([each[i] for each in reported]) for i, name in enumerate(names)}
    return {"both": interval([both(row, "report") for row in rows]), **found}


def summary(rows: Sequence[Data]) -> Data:
    """By way the accuracies over seeds, the settings chosen, and the difference from task arithmetic."""
    from scipy import stats

    tuned = {
        name: [row["ways"][name][chosen(row["ways"][name])] for row in rows]
        for name in rows[0]["ways"]
    }
    ways: dict[str, Data] = {}
    for name, found in tuned.items():
        settings = [chosen(row["ways"][name]) for row in rows]
        defaults = [next(iter(row["ways"][name].values())) for row in rows]
        over = [both(a, "report") - both(b, "report") for a, b in zip(found, tuned[BASELINE])]
        ways[name] = {
            "chosen": {each: settings.count(each) for each in sorted(set(settings))},
            **told(found), "at_defaults": told(defaults)["both"], "over_task_arithmetic": interval(over),
        }  # fmt: skip
        differs = len(rows) > 1 and len(set(over)) > 1
        ways[name]["p"] = float(stats.ttest_1samp(over, 0).pvalue) if differs else 1.0
    others = [name for name in ways if name != BASELINE]
    for name, p in zip(others, holm([ways[name]["p"] for name in others])):
        ways[name]["p_holm"] = round(p, 5)
    models = {name: told([row["models"][name] for row in rows]) for name in rows[0]["models"]}
    return {"models": models, "ways": ways}


# --- the section of the page -------------------------------------------------------------------


def points(found: Data, signed: bool = False) -> str:
    """`81.3 ± 2.0` in percent or points."""
    half = found["half_of_interval_95"]
    value = f"{100 * found['mean']:{'+' if signed else ''}.1f}"
    return value if half is None else f"{value} ± {100 * half:.1f}"


def lines(found: Data) -> list[str]:
    """The table, from the best way to the worst."""
    heads = ("", "setting chosen most", "both tasks", "`ten`", "`five`", "base's rules",
             "both, at defaults", "over task-arithmetic")  # fmt: skip
    rows: list[Sequence[str]] = [heads, ["---"] * len(heads)]
    names = {"base": "*base*", "ten": "*fine-tuned on `ten`*", "five": "*fine-tuned on `five`*",
             "both": "*trained on both at once*"}  # fmt: skip
    for name, row in found["models"].items():
        rows.append([names[name], "", *_accuracies(row), "", ""])
    ranked = sorted(found["ways"].items(), key=lambda each: -each[1]["both"]["mean"])
    for name, row in ranked:
        often = max(row["chosen"], key=lambda each: row["chosen"][each])
        star = " \\*" if row.get("p_holm", 1) < 0.05 else ""
        over = "" if name == BASELINE else points(row["over_task_arithmetic"], signed=True) + star
        at = points(row["at_defaults"])
        rows.append([f"`{name}`", f"`{often}`" if often else "", *_accuracies(row), at, over])
    return [f"| {' | '.join(row)} |" for row in rows]


def _accuracies(row: Data) -> list[str]:
    return [points(row[name]) for name in ("both", "ten", "five", "old")]


def verdict(found: Data) -> str:
    """Who wins, in sentences, by the adjusted tests."""
    ways = found["ways"]
    best = max(ways, key=lambda name: ways[name]["both"]["mean"])
    sure = {name: row["over_task_arithmetic"]["mean"] for name, row in ways.items()
            if row.get("p_holm", 1) < 0.05}  # fmt: skip
    above, below = (
        ", ".join(
            f"`{n}`"
            for n, over in sorted(sure.items(), key=lambda each: -each[1])
            if sign * over > 0
        )
        for sign in (1, -1)
    )
    model = found["models"]
    alone = max((model[name]["both"] for name in ("ten", "five")), key=lambda each: each["mean"])
    return (
        f"The best mean of both tasks has `{best}` ({points(ways[best]['both'])}), task arithmetic has"
        f" {points(ways[BASELINE]['both'])}, the better fine-tune alone, not merged at all, {points(alone)},"
        f" training on both tasks at once {points(model['both']['both'])}."
        f" Better than task arithmetic beyond chance (paired t-tests, adjusted by Holm, p < 0.05):"
        f" {above or 'none'}. Worse beyond chance: {below or 'none'}."
    )  # fmt: skip


def section(result: Data) -> str:
    """The section for the page, in Markdown."""
    found, sizes = result["summary"], result["sizes"]
    return "\n\n".join([
        f"{result['seeds']} bases of the demo's kind `part` (that of seed 0 is the embedded one), each with two"
        " fine-tunes: `ten` goes on with one rule of card sums alone; `five` learns a rule that is new to the"
        " base, with as many hands of the base's other rules. Numbers are accuracies in percent on held-out"
        f" hands, {sizes['hands']} for each rule; base's rules: the mean of `rank`, `low` and `zero`. Each way"
        " had its settings (six scales, three shares or its own option) chosen on one half of the held-out"
        " hands, seed by seed, and is reported on the other half; shares may favour the weaker task, which scales"
        " cannot. `nearswap` and `arcee-fusion` start from `ten` and take from `five`. ±: half of a 95 %"
        " t-interval over the bases."
        f" Measured on {result['date']} by `benchmarks/two_tasks.py`, in"
        f" {result['cpu_s'] / 60:.0f} minutes of CPU time.",
        verdict(found),
        "\n".join(lines(found)),
        "\\* differs from task arithmetic, p < 0.05 after Holm's adjustment. These are models of 0.8 million"
        " parameters that answer with one token: they say how the methods treat two differences that pull"
        " apart, not how large models fare.",
    ])  # fmt: skip


def put_section(page: Path, content: str) -> None:
    """Put the section between its marks in a page, which gets them at its end if it has none."""
    start, end = marked(STAGE)
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if start not in text:
        text += f"\n## Two tasks merged: a study\n\n{start}\n{end}\n"
    inner = re.compile(f"(?<={re.escape(start)}\n).*?(?={re.escape(end)})", re.DOTALL)
    page.write_text(inner.sub(lambda _: f"\n{content}\n\n", text), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description="Study ways of merging on models of the demo.")
    parser.add_argument("folder", type=Path, help="where models and measurements are kept")
    parser.add_argument("--seeds", type=int, default=10, help="bases (default: 10)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: 1)")
    parser.add_argument("--hands", type=int, default=HANDS, help=f"default: {HANDS}")
    parser.add_argument("--quick", action="store_true", help="train little: to try the script")
    parser.add_argument("--docs", type=Path, help="page whose section is made anew")
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    sizes = replace(FULL, hands=given.hands, quick=given.quick)
    jobs = min(given.jobs, given.seeds)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        work = partial(measured, given.folder.resolve(), sizes)
        rows = list(pool.map(work, range(given.seeds)))
    result = about("uvmerge", "torch", "transformers") | {
        "seeds": given.seeds, "sizes": sizes.as_data(), "cpu_s": round(sum(r["cpu_s"] for r in rows)),
        "left_out": sorted(left_out()), "summary": summary(rows), "pairs": rows,
    }  # fmt: skip
    if given.quick:
        print("\n".join(lines(result["summary"])), verdict(result["summary"]), sep="\n\n")
        return
    write_result(STAGE, result)
    if given.docs:
        put_section(given.docs, section(result))
    print(verdict(result["summary"]))


if __name__ == "__main__":
    main()
