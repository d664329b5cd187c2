"""What a person sees on stderr: the plan first, then one progress bar, weighted by work.

Where stderr is neither a notebook's nor a terminal's, or the terminal has no columns, there is a line
every ten per cent in place of the bar.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from ..errors import counted
from ..plan import words
from ..plan.steps import Plan
from ..text import duration, inert, size
from .settings import Control, Settings

_WORK = "{percentage:3.0f}% |{bar}| {elapsed} elapsed, {remaining} left{postfix}"
_BYTES = "{percentage:3.0f}% |{bar}| {n_fmt}B of {total_fmt}B, {rate_fmt}, {remaining} left"
Advance = Callable[[str, float], None]
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
            print(_encodable(inert(text), self.stream), file=self.stream, flush=True)

    def plan(
        self, plan: Plan, way: str, settings: Settings, memory_bytes: int, free_bytes: int
    ) -> None:
        """Say what is about to happen: what changes and how, bytes, memory, free disk, notes.

        Args:
            way: from the inputs to OUT, as `words.way` tells it.
        """
        if self.quiet:
            return
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
        """Show the progress of a run while the block lasts, beside what the caller's control does.

        Args:
            total: the work of the whole run, in the units of `Step.work`.
        """
        of_caller = control.advance
        with self._shown(total, _WORK) as advance:

            def both(tensor: str, work: float) -> None:
                if advance is not None:
                    advance(tensor, work)
                of_caller(tensor, work)

            control.advance = both
            try:
                yield
            finally:
                control.advance = of_caller

    @contextmanager
    def phase(self, name: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        """Show how many bytes of a phase are done while the block lasts.

        Args:
            name: what is done, like `verifying`.

        Yields:
            A function to call, from any thread, with the number of bytes just done.
        """
        layout = f"{name} {_BYTES}"
        with self._shown(total_bytes, layout, f"{name} {size(total_bytes)}") as advance:
            yield (lambda count: None) if advance is None else (lambda count: advance("", count))

    @contextmanager
    def _shown(self, total: float, layout: str, opening: str = "") -> Iterator[Advance | None]:
        """A bar or lines; nothing, and None, where the run is quiet.

        Args:
            layout: of the bar, as tqdm takes it.
            opening: the first line, where there are lines; then no line says 100 %.
        """
        if self.quiet:
            yield None
        elif self._draws:
            with self._bar(total, layout, stays=not opening) as advance:
                yield advance
        else:
            if opening:
                self.say(opening)
            yield _Lines(self, total, opening.partition(" ")[0]).advance

    @property
    def _draws(self) -> bool:
        """Whether a bar can be drawn where messages go."""
        return (self.stream is sys.stderr and is_notebook()) or _has_columns(self.stream)

    @contextmanager
    def _bar(self, total: float, layout: str, stays: bool) -> Iterator[Advance]:
        made = _tqdm()(
            total=total, file=self.stream, bar_format=layout, dynamic_ncols=True, leave=stays,
            unit="B", unit_scale=True,
        )  # fmt: skip
        with made as bar:
            mutex = threading.Lock()

            def advance(tensor: str, work: float) -> None:
                with mutex:
                    if self.verbose and tensor:
                        bar.write(inert(tensor), file=self.stream)
                    bar.set_postfix_str(inert(tensor)[-40:], refresh=False)
                    bar.update(min(work, total - bar.n))

            yield advance


class _Lines:
    """A line for every tenth of the work, once a run has lasted for a moment."""

    def __init__(self, progress: Progress, total: float, name: str) -> None:
        self.progress, self.total, self.name = progress, total, name
        self.started, self.mutex = time.monotonic(), threading.Lock()
        self.done, self.tenths = 0.0, 0

    def advance(self, tensor: str, work: float) -> None:
        with self.mutex:
            self.done = min(self.done + work, self.total)
            if self.progress.verbose and tensor:
                self.progress.say(tensor)
            tenths = int(10 * self.done / self.total + 1e-9) if self.total else 10
            elapsed = time.monotonic() - self.started
            is_last = tenths == 10
            if tenths > self.tenths and (elapsed > QUIET_S or (is_last and not self.name)):
                self.tenths = tenths
                rest = elapsed / self.done * (self.total - self.done) if self.done else 0.0
                left = "" if is_last else f", about {duration(rest)} left"
                start = f"{self.name}: " if self.name else ""
                self.progress.say(f"{start}{10 * tenths}% after {duration(elapsed)}{left}")


def _encodable(text: str, stream: TextIO) -> str:
    """`text` with what the encoding of `stream` lacks spelled out."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        spelled = text.replace("→", "->").encode(encoding, "backslashreplace")
        return spelled.decode(encoding)
    return text


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    kernel = shell.get_ipython() if shell is not None else None
    return kernel is not None and "IPKernelApp" in getattr(kernel, "config", ())


def is_watched(stream: TextIO) -> bool:
    """Whether a person sees what is written to `stream`: in a terminal, or in a notebook."""
    return stream.isatty() or is_notebook()


def _has_columns(stream: TextIO) -> bool:
    """Whether `stream` is a terminal with columns to draw in."""
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:  # not a terminal of this system
        return True


def _tqdm() -> Any:
    """The class of progress bars: widgets in a notebook, where they are installed, else text."""
    if not is_notebook():  # `tqdm.auto` loads asyncio, which takes a while
        from tqdm import tqdm

        return tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no widgets
        from tqdm.auto import tqdm as automatic

    return automatic
