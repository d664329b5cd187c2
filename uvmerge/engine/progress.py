"""What a person sees on stderr: the plan first, then one progress bar, weighted by work.

Where stderr is no terminal, there is a line every ten per cent in place of the bar.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ..errors import counted
from ..plan import words
from ..plan.steps import Plan
from ..text import duration, inert, size
from .settings import Control, Settings

QUIET_S = 1.0  # seconds before the first line; a shorter run has the line of 100 % alone


class Progress:
    """Messages of one run.

    Args:
        quiet: say nothing at all.
        verbose: name each tensor as it is finished.
        stream: where to write; stderr by default.
    """

    def __init__(
        self, *, quiet: bool = False, verbose: bool = False, stream: TextIO | None = None
    ) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.stream = stream if stream is not None else sys.stderr

    def say(self, text: str) -> None:
        """Write one line; control characters in it are made inert."""
        if not self.quiet:
            print(inert(text), file=self.stream, flush=True)

    def plan(
        self, plan: Plan, way: str, settings: Settings, memory_bytes: int, free_bytes: int
    ) -> None:
        """Say what is about to happen: what changes and how, bytes, memory, free disk, notes.

        Args:
            way: from the inputs to OUT, as `words.way` tells it.
        """
        self.say(f"plan: {words.summary(plan)}")
        for line in (words.setting(plan.recipe), way, words.changed_layers(plan)):
            self.say(f"      {line}")
        ranks = sorted({k for s in plan.edits for b in s.blocks for k in b.ranks if k is not None})
        if ranks:
            span = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
            shapes = len({b.view.shape for s in plan.edits for b in s.blocks})
            self.say(f"      k = {span} over {counted(shapes, 'shape')}")
        self.say(
            f"      reads {size(plan.bytes_in)}, writes {size(plan.bytes_out)} ({size(free_bytes)} free)"
        )
        if plan.needs_torch:
            self.say(
                f"      largest edit about {size(plan.working_set_bytes)} of memory"
                f" ({size(memory_bytes)} available); {settings.device}, {settings.precision}"
            )
        for note in plan.notes:
            self.say(f"note: {note}")

    @contextmanager
    def bar(self, total: float, control: Control) -> Iterator[None]:
        """Show the progress of a run while the block lasts.

        Args:
            total: the work of the whole run, in the units of `Step.work`.
        """
        if self.quiet:
            yield
            return
        if not self.stream.isatty():
            with _lines(self, total, control):
                yield
            return
        from tqdm import tqdm

        layout = "{percentage:3.0f}% |{bar}| {elapsed} elapsed, {remaining} left{postfix}"
        with tqdm(total=total, file=self.stream, bar_format=layout, dynamic_ncols=True) as bar:
            mutex = threading.Lock()

            def advance(tensor: str, work: float) -> None:
                with mutex:
                    if self.verbose:
                        bar.write(inert(tensor), file=self.stream)
                    bar.set_postfix_str(inert(tensor)[-40:], refresh=False)
                    bar.update(min(work, total - bar.n))

            control.advance = advance
            yield


@contextmanager
def _lines(progress: Progress, total: float, control: Control) -> Iterator[None]:
    started, mutex = time.monotonic(), threading.Lock()
    done, said = 0.0, 0

    def advance(tensor: str, work: float) -> None:
        nonlocal done, said
        with mutex:
            done += work
            if progress.verbose:
                progress.say(tensor)
            tenth = int(10 * done / total + 1e-9) if total else 10
            elapsed = time.monotonic() - started
            if tenth > said and (elapsed > QUIET_S or tenth == 10):
                said = tenth
                left = f", about {duration(elapsed / done * (total - done))} left"
                progress.say(f"{10 * tenth}% after {duration(elapsed)}{left if tenth < 10 else ''}")

    control.advance = advance
    yield
