"""Measure matched matrices of several checkpoints, each decomposed once, by threads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import torch

from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import FLOATS
from ..checkpoint.roles import BASE
from ..errors import RunFailed
from ..measure.compare import measure_all
from ..measure.findings import Entry, Other
from ..measure.measures import Measures
from ..plan.pairing import Match, Pairing
from ..spectral.magnitude import norm
from ..spectral.matrix import DenseMatrix
from ..spectral.precision import single_threaded
from .crew import Crew, refuse_too_large
from .measurements import Decompose, Key, Measured, Rank, Subtract, in_order, role, tasks
from .reading import Reader, Span, all_finite, equal
from .settings import Control, Phases, Settings

PIECE_BYTES = 1 << 20  # read at a time from tensors that are compared as bytes
# Per checkpoint: `Entry.state`, and the matrix where that is `measured`.
Matrices: TypeAlias = list[tuple[str, DenseMatrix | None]]


def work_of(pairing: Pairing, rank: Rank) -> float:
    """All the work, in the units in which `control.advance` reports it."""
    moving, computing = tasks(pairing, rank)
    return sum(task.work for task in moving) + sum(task.work for task in computing)


def refuse_large(pairing: Pairing, rank: Rank, settings: Settings) -> None:
    """Refuse, before anything is read, a matrix that does not fit in memory.

    Raises:
        InputRefused: names the matrix.
    """
    refuse_too_large(tasks(pairing, rank)[1], settings)


def run(
    pairing: Pairing,
    checkpoints: Mapping[str, Checkpoint],
    rank: Rank,
    settings: Settings,
    control: Control,
    phases: Phases,
) -> tuple[list[Measured], list[list[Other]]]:
    """Measure every match and every other tensor of a pairing.

    Args:
        checkpoints: by `role(number)`.

    Returns:
        What was measured of each match, and per checkpoint its other tensors. After `control.stop`
        was set, those that were not reached are missing.
    """
    moving, computing = tasks(pairing, rank)
    found: dict[Key, Measured | Other] = {}
    with single_threaded():
        measurer = Measurer(checkpoints, settings, phases, rank)

        def do(task: Decompose | Subtract) -> None:
            found[task.key] = measurer.do(task)

        Crew(do, measurer.prepare_thread, settings, control).work_off(moving, computing)
    return in_order(found, len(pairing.partners))


class Measurer(Reader):
    """Measures one match at a time in each of several threads."""

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        settings: Settings,
        phases: Phases,
        rank: Rank,
    ) -> None:
        super().__init__(checkpoints, settings, phases)
        self.rank = rank

    def do(self, task: Decompose | Subtract) -> Measured | Other:
        """Do one task; see `measure` and `subtract`."""
        return self.measure(task.match) if isinstance(task, Decompose) else self.subtract(task)

    def measure(self, match: Match) -> Measured:
        """Measure all counterparts of one matrix of the base; on the CPU where the GPU is full.

        Raises:
            RunFailed: names the matrix: values too large to measure, a decomposition that does not
                converge, or not enough memory.
        """
        try:
            return self._measure(match, self.device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return self._measure(match, "cpu", "cpu (out of GPU memory)")
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise RunFailed(
                match.base.label,
                f"it cannot be measured: {error}",
                "Leave it out with --exclude and report the matrix.",
            ) from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            raise RunFailed(
                match.base.label,
                "there is not enough memory to measure it",
                "Try --workers 1, or leave it out with --exclude.",
            ) from error

    def _measure(self, match: Match, device: str, said: str = "") -> Measured:
        with self.phases.timed("read"):
            stored = self.load(BASE, match.base)
            finite = all_finite(stored)
            loaded = [self._counterpart(match, i, stored, finite) for i in self._numbers]
            precision = self.precision_for([stored, *(V for _, V in loaded if V is not None)])
            base = self.matrix(f"{match.base.label} (base)", stored, device, precision)
            found = [
                (
                    state,
                    self.matrix(view.label, V, device, precision)
                    if view and V is not None
                    else None,
                )
                for view, (state, V) in zip(match.others, loaded, strict=True)
            ]
        with self.phases.timed("measure"):
            movers = [matrix for _, matrix in found if matrix is not None]
            k = base.rank(self.rank.top, self.rank.rank, self.rank.energy) if movers else 0
            several = len(found) > 1 and all(s in ("measured", "identical") for s, _ in found)
            everyone = [base if matrix is None else matrix for _, matrix in found]
            measures, distances = measure_all(base, everyone if several else movers, k, several)
        entries = self._entries(match, found, iter(measures), said or device)
        return Measured(entries, distances, norm(stored) if distances else 0.0)

    @property
    def _numbers(self) -> range:
        return range(1, len(self.checkpoints))

    def _counterpart(
        self, match: Match, number: int, base: torch.Tensor, finite: bool
    ) -> tuple[str, torch.Tensor | None]:
        """`Entry.state` of a counterpart, and its values where they are to be measured."""
        view = match.others[number - 1]
        if view is None:
            return "missing", None
        stored = self.load(role(number), view)
        if not finite or not all_finite(stored):
            return "nonfinite", None
        if equal(base, stored):
            return "identical", None
        return "measured", stored

    def _entries(
        self, match: Match, found: Matrices, measures: Iterator[Measures], device: str
    ) -> list[Entry | None]:
        entries: list[Entry | None] = []
        for number, view, (state, _) in zip(self._numbers, match.others, found):
            if view is None:
                entries.append(None)
                continue
            dtype = self.checkpoints[role(number)].tensors[view.tensor].dtype
            entries.append(
                Entry(
                    view.label,
                    match.place.layer,
                    match.place.module,
                    match.role,
                    match.shape,
                    dtype,
                    state,
                    next(measures) if state == "measured" else None,
                    device,
                )
            )
        return entries

    def subtract(self, task: Subtract) -> Other:
        """The relative change of a tensor of any shape, which is read in pieces."""
        ours, theirs = task.base, task.other
        if not {ours.dtype, theirs.dtype} <= set(FLOATS):
            same = ours.dtype == theirs.dtype and self._same_bytes(ours, theirs, task.checkpoint)
            return Other(task.name, task.module, 0.0 if same else None)
        size = distance = 0.0
        with self.phases.timed("subtract"):
            pieces = self._aligned(ours, BASE), self._aligned(theirs, role(task.checkpoint))
            for before, after in zip(*pieces, strict=True):
                old = before.double()
                size = math.hypot(size, norm(old))
                if not equal(before, after):
                    distance = math.hypot(distance, norm(after.double() - old))
        if distance == 0:
            return Other(task.name, task.module, 0.0)
        relative = distance / size if size else math.inf
        return Other(task.name, task.module, relative if math.isfinite(relative) else None)

    def _aligned(self, tensor: Tensor, of: str) -> Iterator[torch.Tensor]:
        return self.pieces(of, Span(tensor.file, tensor.offset, tensor.size_bytes, tensor.dtype))

    def _same_bytes(self, ours: Tensor, theirs: Tensor, number: int) -> bool:
        one, other = self.checkpoints[BASE], self.checkpoints[role(number)]
        for at in range(0, ours.size_bytes, PIECE_BYTES):
            count = min(PIECE_BYTES, ours.size_bytes - at)
            before = one.read(ours.file, ours.offset + at, count)
            if before != other.read(theirs.file, theirs.offset + at, count):
                return False
        return True
