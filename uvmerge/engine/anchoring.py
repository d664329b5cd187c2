"""Leading singular vectors of a base, matrix by matrix, written where an anchor file has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import xxhash
from torch import Tensor

from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import BASE
from ..errors import RunFailed
from ..output.single import FileStaging
from ..plan.anchor import AnchorStep, working_set
from ..spectral.matrix import DenseMatrix
from ..spectral.precision import single_threaded
from ..training.anchor_file import content_hash
from .crew import Crew
from .reading import TORCH_DTYPES, Reader, all_finite, as_bytes, converted
from .settings import Control, NonfiniteRefused, Phases, Settings

Result = TypeVar("Result")

RANKS, FILE = "ranks", "anchor.safetensors"  # names of files in the staging folder
_RANK_BYTES = 8
_PANEL_ROWS = 4096  # rounded and written at a time
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


class Hashes(NamedTuple):
    """xxh3-128 of the bytes of a base tensor, and of those of its factors."""

    content: str
    factors: str


@dataclass(frozen=True)
class Task:
    """One matrix to anchor.

    Attributes:
        number: its place among all matrices.
        offset, factor_bytes: where its factors go in the file, U before V; 0 bytes where none do.
    """

    number: int
    step: AnchorStep
    offset: int = 0
    factor_bytes: int = 0

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def work(self) -> float:
        return self.step.work

    @property
    def size_bytes(self) -> int:
        return self.step.tensor.size_bytes

    @property
    def memory_bytes(self) -> int:
        """Estimated working set on the CPU."""
        return working_set(self.step)


class Anchoring:
    """One run: the ranks that the singular values decide, then the factors.

    Args:
        staging: where both are written.
        dtype: of the factors, as safetensors names it.
    """

    def __init__(
        self, base: Checkpoint, staging: FileStaging, dtype: str, settings: Settings, phases: Phases
    ) -> None:
        self.staging, self.dtype, self.settings, self.phases = staging, dtype, settings, phases
        self.reader = Reader({BASE: base}, settings, phases)

    def ranks(self, steps: Sequence[AnchorStep], energy: float, control: Control) -> list[int]:
        """k of each matrix, the smallest with this share of the squared singular values.

        They are written to a file of the staging folder, so that a run that resumes has them. After
        `control.stop` was set, those that were not reached are 0.
        """
        self.staging.create_file(RANKS, b"", _RANK_BYTES * len(steps))
        found = [0] * len(steps)

        def do(task: Task) -> None:
            at = task.number * _RANK_BYTES
            if self.staging.is_done(RANKS, at, _RANK_BYTES):
                raw = self.staging.read(RANKS, at, _RANK_BYTES)
                found[task.number] = int.from_bytes(raw, "little")
                return
            k = self._guarded(task.name, lambda device: self._rank(task.step, energy, device))
            raw = k.to_bytes(_RANK_BYTES, "little")
            self.staging.write(RANKS, at, memoryview(raw))
            self.staging.finish(RANKS, at, _RANK_BYTES, xxhash.xxh3_128_hexdigest(raw))
            found[task.number] = k

        self._work_off(do, [Task(i, step) for i, step in enumerate(steps)], control)
        return found

    def factors(self, tasks: Sequence[Task], control: Control) -> dict[str, Hashes]:
        """Write the factors of every matrix; returns the hashes by name.

        After `control.stop` was set, those of the matrices that were not reached are missing.

        Raises:
            NonfiniteRefused: a matrix holds NaN or Inf.
            RunFailed: names the matrix, which cannot be decomposed or does not fit in memory.
        """
        found: dict[str, Hashes] = {}

        def do(task: Task) -> None:
            found[task.name] = self._guarded(task.name, lambda device: self._anchor(task, device))

        self._work_off(do, tasks, control)
        return found

    def _work_off(
        self, do: Callable[[Task], None], tasks: Sequence[Task], control: Control
    ) -> None:
        with single_threaded():
            crew = Crew(do, self.reader.prepare_thread, self.settings, control)
            moving = [task for task in tasks if task.step.is_full]
            crew.work_off(moving, [task for task in tasks if not task.step.is_full])

    def _guarded(self, name: str, compute: Callable[[str], Result]) -> Result:
        """`compute` on this thread's device, or on the CPU where the GPU is full."""
        try:
            return compute(self.reader.device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return compute("cpu")
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            raise RunFailed(
                name,
                "there is not enough memory to decompose it",
                "Try --workers 1, or a machine with more memory; the same command resumes.",
            ) from error

    def _load(self, step: AnchorStep) -> Tensor:
        """A matrix (m, n) of finite values."""
        with self.phases.timed("read"):
            stored = self.reader.load(BASE, step.view)
            if not all_finite(stored):
                raise NonfiniteRefused(
                    step.name,
                    "NaN or Inf in the base",
                    "Leave it out with --exclude, or restore the checkpoint that was damaged.",
                )
        return stored

    def _matrix(self, step: AnchorStep, stored: Tensor, device: str) -> DenseMatrix:
        return self.reader.matrix(step.name, stored, device, self.reader.precision_for([stored]))

    def _rank(self, step: AnchorStep, energy: float, device: str) -> int:
        matrix = self._matrix(step, self._load(step), device)
        with self.phases.timed("decompose"):
            k = matrix.rank(energy=energy)
            if matrix.shelf is not None:
                matrix.top(k)  # kept, so that the pass for the factors finds it
            matrix.release()
        return k

    def _anchor(self, task: Task, device: str) -> Hashes:
        step = task.step
        stored = self._load(step)
        with self.phases.timed("hash"):
            content = content_hash(stored.mT if step.view.transposed else stored, step.tensor.dtype)
        if not task.factor_bytes:
            return Hashes(content, xxhash.xxh3_128_hexdigest(b""))
        place = (FILE, task.offset, task.factor_bytes)
        if not self.staging.is_done(*place):
            matrix, k = self._matrix(step, stored, device), step.most
            with self.phases.timed("decompose"):
                U, _, Vh = matrix.top(k)
                matrix.release()
            sides = (Vh.mT, U) if step.view.transposed else (U, Vh.mT)
            hasher, offset = xxhash.xxh3_128(), task.offset
            with self.phases.timed("write"):
                for piece in (piece for side in sides for piece in self._pieces(side)):
                    hasher.update(piece)
                    self.staging.write(FILE, offset, piece)
                    offset += len(piece)
            self.staging.finish(*place, hasher.hexdigest())
        return Hashes(content, self.staging.journal[FILE, task.offset]["xxh3_128"])

    def _pieces(self, factor: Tensor) -> Iterator[memoryview]:
        """The bytes of a factor (·, k) as the file has them, rounded once."""
        for panel in factor.split(_PANEL_ROWS):
            panel = panel.cpu().contiguous()
            yield converted(as_bytes(panel), _NAMES[panel.dtype], self.dtype)
