"""Put the results of a study into the repository: `python -m uvmerge.study.docs OUT`.

The results file goes to `benchmarks/results/study.json`, the figures to `docs/`, and the section between
two marks of `docs/training.md` is made anew from the results file. No number in it is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..report.plots import png
from ..text import duration
from .results import conditions
from .stage import stages

RESULTS = "benchmarks/results/study.json"
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
        f"{conditions(found)} It took {seconds} of CPU time.",
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
    found = json.loads(text)
    for place, stage in PAGES.items():
        page = root / place
        page.write_text(with_section(page.read_text(), stage, section(found, stage)))
        drawn = png(partial(stages()[stage].draw, found["stages"][stage]))
        (page.parent / f"{stage}.png").write_bytes(drawn)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
