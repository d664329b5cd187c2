"""The benchmark of Java code as a whole: time with `gold`, compiling, and what each kind of context is worth.

    python benchmarks/ccci_judge.py [--rounds 3] [--apart 8]

Goals: 60 s for the whole benchmark on 2 loaded cores, 25 s on idle ones. CPU seconds of the whole are
those of a run without a sandbox, since a process behind walls is not counted to the one that started it.
Candidates are compiled by one Java for all of them, and some by a `javac` each. The fixed rules are run
with the whole context, and without each kind; a flip is a hole that passes with one of the two alone.

Writes benchmarks/results/ccci_judge.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import about, process, table, write_result

from uvmerge.api.evaluate_ccci import evaluate_ccci
from uvmerge.tasks.ccci import KINDS, judge
from uvmerge.tasks.ccci.benchmark import LIBRARY, SOURCES, tasks
from uvmerge.tasks.statistics import mcnemar

WHOLE = "import sys, json; from uvmerge.api.evaluate_ccci import evaluate_ccci as e; print(json.dumps(e(sys.argv[1]).as_data()))"
NO_WALLS = (
    "from uvmerge.tasks.ccci import judge, sandbox; from uvmerge.tasks.ccci.benchmark import tasks;"
    "assert all(j.passes for j in judge.judge([(t.hole, t.hole.gold) for t in tasks()],"
    " (judge.java(), sandbox.NONE)))"
)
ONE_COMPILER = (
    "from uvmerge.tasks.ccci import judge, sandbox; from uvmerge.tasks.ccci.benchmark import tasks;"
    "judge.Bench._tested = lambda *_: '';"
    "judge.judge([(t.hole, t.hole.gold) for t in tasks()], (judge.java(), sandbox.NONE))"
)


def children_cpu_s() -> float:
    """CPU seconds of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compiled_apart(count: int) -> float:
    """CPU seconds for each candidate, with a `javac` of its own."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = [str(p) for folder in (LIBRARY, SOURCES) for p in folder.rglob("*.java")]
        javac = ["javac", "-proc:none", "--release", "17"]
        subprocess.run([*javac, "-d", f"{root}/base", *files], check=True)
        before = children_cpu_s()
        for number, task in enumerate(tasks()[:count]):
            source = str(SOURCES / task.hole.file)
            target = f"{root}/{number}"
            subprocess.run([*javac, "-cp", f"{root}/base", "-d", target, source], check=True)
        return (children_cpu_s() - before) / count


def passing(without: tuple[str, ...]) -> tuple[set[str], dict[str, Any]]:
    """The holes that the rules pass, and the scores."""
    done = evaluate_ccci("rules", without=without)
    return {row["id"] for row in done.samples if row["build_pass"]}, done.as_data()


def ablation() -> dict[str, Any]:
    """Build Pass and CodeBLEU of the rules with and without each kind, and which holes flip."""
    rows: dict[str, Any] = {}
    whole, scores = passing(())
    rows["all"] = {name: round(scores[name], 3) for name in ("build_pass", "codebleu", "bleu4")}
    for name, without in {**{kind: (kind,) for kind in KINDS}, "every kind": KINDS}.items():
        passed, scores = passing(without)
        lost, won = len(whole - passed), len(passed - whole)
        rows[f"without {name}"] = {
            **{key: round(scores[key], 3) for key in ("build_pass", "codebleu", "bleu4")},
            "lost": lost, "won": won, "mcnemar_p": float(f"{mcnemar(lost, won):.2g}"),
        }  # fmt: skip
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--apart", type=int, default=8)
    settings = options.parse_args()
    found = judge.available()
    if isinstance(found, str):
        raise SystemExit(found)
    waiting = round(os.getloadavg()[0])
    runs = [process([sys.executable, "-c", WHOLE, "gold"]) for _ in range(settings.rounds)]
    gold = [json.loads(run.output) for run in runs]
    assert all(each["build_pass"] == 1.0 for each in gold)
    figures = {
        "holes": gold[0]["n"], "walls": found[1], "processes_waiting": waiting,
        "gold_wall_s": round(statistics.median(run.wall_s for run in runs), 1),
        "gold_cpu_s_without_walls": round(process([sys.executable, "-c", NO_WALLS]).cpu_s, 1),
        "one_compiler_cpu_s": round(process([sys.executable, "-c", ONE_COMPILER]).cpu_s, 1),
        "javac_each_cpu_s_per_candidate": round(compiled_apart(settings.apart), 2),
    }  # fmt: skip
    rows = ablation()
    write_result(
        "ccci_judge", about("uvmerge", "codebleu", "sacrebleu") | figures | {"rules": rows}
    )
    print(table([("figure", "value"), *figures.items()]))
    keys = list(rows["without scope"])
    print(table([("rules", *keys), *((name, *(row.get(key, "") for key in keys)) for name, row in rows.items())]))  # fmt: skip


if __name__ == "__main__":
    main()
