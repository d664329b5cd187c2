"""Put the results of a study into the repository: `python -m uvmerge.study.docs OUT`.

The results file goes to `benchmarks/results/study.json`, with a CSV file for each stage beside it, the
figures to `docs/`. `docs/study.md` is the page of the results file, and the section between two marks of
`docs/training.md` is made anew from it. `uvmerge/recipe/advice.json`, which `diff` and
the list of recipes follow, and a sentence of the README are made of it too. No number in them is written
by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from ..report.plots import png
from ..text import duration
from .advice import advice, sentence
from .page import conditions, page
from .results import as_csv
from .sizes import Sizes
from .stage import stages

RESULTS = "benchmarks/results/study.json"
PAGE = "docs/study.md"
ADVICE = "uvmerge/recipe/advice.json"
README = "README.md"
_WIDTH = 118  # of the lines of the README
PAGES = {"docs/training.md": "prevention"}
"""Page -> the stage whose section it holds."""


def marked(stage: str) -> tuple[str, str]:
    """The marks before and after the section of a stage."""
    return f"<!-- study: {stage} -->", f"<!-- end of study: {stage} -->"


def section(found: Mapping[str, Any], stage: str) -> str:
    """The section of a stage for a page of the documentation, in Markdown."""
    summary = found["stages"][stage]
    shown = stages()[stage]
    seconds = duration(summary["cpu_s"])
    return "\n\n".join([
        f"![{shown.title}]({stage}.png)",
        shown.section(summary),
        f"{shown.sized(Sizes(**found['sizes']))} {conditions(found)} It took {seconds} of CPU time.",
    ])  # fmt: skip


def with_section(text: str, stage: str, content: str) -> str:
    """A page with the section of a stage put between its marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, after = map(re.escape, marked(stage))
    made, count = re.subn(
        f"({before}\n).*?({after})", lambda m: f"{m[1]}\n{content}\n\n{m[2]}", text, flags=re.S
    )
    if count != 1:
        raise ValueError(f"the page has {count} sections of the stage {stage}")
    return made


def main(out: Path, root: Path = Path()) -> None:
    """Copy the results of the study in `out` into the repository at `root`."""
    text = (out / "study.json").read_text()
    (root / RESULTS).write_text(text)
    put(json.loads(text), root)


def put(found: Mapping[str, Any], root: Path) -> None:
    """Make the pages, the figures, the CSV files and the advice of the repository at `root` from results."""
    given = advice(found)
    (root / ADVICE).write_text(json.dumps(given, indent=1, ensure_ascii=False) + "\n")
    readme = (root / README).read_text()
    (root / README).write_text(with_section(readme, "advice", fill(sentence(given), _WIDTH)))
    (root / PAGE).write_text(page(found))
    for name, summary in found["stages"].items():
        stage = stages()[name]
        (root / PAGE).with_name(f"{name}.png").write_bytes(png(partial(stage.draw, summary)))
        (root / RESULTS).with_name(f"study-{name}.csv").write_text(as_csv(stage.rows(summary)))
    for place, name in PAGES.items():
        target = root / place
        target.write_text(with_section(target.read_text(), name, section(found, name)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
