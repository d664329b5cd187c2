"""Types of the public surface for type checkers; at run time operations are found by looking."""

from collections.abc import Sequence
from typing import Any, Literal

from typing_extensions import Unpack

from .api.check import check as check
from .api.diff import Diff as Diff, diff as diff
from .api.run import (
    FilterOptions as _FilterOptions,
    Reference as _Reference,
    Result as Result,
    StepOptions as _StepOptions,
    run as run,
)
from .api.show import show as show
from .api.sweep import sweep as sweep
from .checkpoint.folder import Checkpoint as Checkpoint
from .errors import (
    InputRefused as InputRefused,
    Interrupted as Interrupted,
    Locked as Locked,
    ProblemsFound as ProblemsFound,
    RecipeError as RecipeError,
    RunFailed as RunFailed,
    Unrelated as Unrelated,
    UsageError as UsageError,
    UvmergeError as UvmergeError,
)
from .recipe.recipe import Recipe as Recipe

__version__: str
__all__: list[str]

def damp_intruders(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    threshold: float = ...,
    damping: float = ...,
    first: int = ...,
    **options: Unpack[_StepOptions],
) -> Result: ...
def denoise(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    **options: Unpack[_StepOptions],
) -> Result: ...
def interpolate(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    scale: float = ...,
    **options: Unpack[_StepOptions],
) -> Result: ...
def lines(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    alpha: float = ...,
    beta: float = ...,
    **options: Unpack[_StepOptions],
) -> Result: ...
def project(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    top: float | str | None = ...,
    rank: int | None = ...,
    energy: float | str | None = ...,
    side: Literal["two", "left", "right"] = ...,
    alpha: float = ...,
    **options: Unpack[_StepOptions],
) -> Result: ...
def reset_layers(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    frac: float | str | None = ...,
    layers: str | Sequence[int] | None = ...,
    from_: Literal["first", "last"] = ...,
    also: str | Sequence[str] = ...,
    matrices_only: bool = ...,
    **options: Unpack[_FilterOptions],
) -> Result: ...
def restore(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    top: float | str | None = ...,
    rank: int | None = ...,
    energy: float | str | None = ...,
    tail: float | str | None = ...,
    values: Literal["finetuned", "base"] = ...,
    alpha: float = ...,
    **options: Unpack[_StepOptions],
) -> Result: ...
def swap(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    left: bool = ...,
    right: bool = ...,
    top: float | str | None = ...,
    rank: int | None = ...,
    energy: float | str | None = ...,
    align: Literal["procrustes", "match", "sign"] = ...,
    alpha: float = ...,
    **options: Unpack[_StepOptions],
) -> Result: ...
def truncate(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    top: float | str | None = ...,
    rank: int | None = ...,
    drop: bool = ...,
    **options: Unpack[_StepOptions],
) -> Result: ...
def values(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    top: float | str | None = ...,
    rank: int | None = ...,
    energy: float | str | None = ...,
    alpha: float = ...,
    **options: Unpack[_StepOptions],
) -> Result: ...
def __getattr__(name: str) -> Any: ...
