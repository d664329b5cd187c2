"""What of the stub of the package is written by hand."""

from __future__ import annotations

HEAD = '''"""Types of the public surface, made by `python -m uvmerge.api.stub`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from typing_extensions import Unpack

from .api.anchored import AnchorContents as _AnchorContents, Anchored as _Anchored
from .api.check import Checked as _Checked
from .api.compare import Comparison as Comparison
from .api.evaluate import Evaluation as _Evaluation
from .api.push import PushResult as _PushResult
from .api.recipes import RecipeContent as _RecipeContent, Recipes as _Recipes
from .api.reproduce import Reproduction as _Reproduction
from .api.results import Diff as Diff
from .api.run import Result as Result
from .api.scored import CcciEvaluation as _CcciEvaluation
from .api.search import SearchResult as SearchResult
from .api.show import Contents as _Contents
from .api.sweep import Sweep as _Sweep
from .api.work import Worked as _Worked
from .checkpoint.folder import Checkpoint as Checkpoint
from .engine.progress import Progress as _Progress
from .engine.settings import Control as _Control
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
from .recipe.space import Space as _Space
from .tasks.ccci.task import Pack as _Pack, Place as _Place

_Reference = str | Path

__version__: str
__all__: list[str]

class _Watch(TypedDict, total=False):
    quiet: bool | None
    progress: _Progress | None
    control: _Control | None
'''

CALLS = """def anchor_build(
    base: _Reference,
    out: _Reference,
    *,
    top: float | str | None = ...,
    rank: int | None = ...,
    energy: float | str | None = ...,
    **settings: Unpack[_Anchor],
) -> _Anchored: ...
def anchor_show(file: _Reference) -> _AnchorContents: ...
def moe(
    config: _Reference | Mapping[str, Any], out: _Reference, **settings: Unpack[_Moe]
) -> Result: ...
def recipe_list() -> _Recipes: ...
def recipe_show(recipe: _Reference) -> _RecipeContent: ...
def push(
    out: _Reference,
    repo: str,
    *,
    tell: Callable[[str], None] = ...,
    **settings: Unpack[_PushSettings],
) -> _PushResult: ...
def recipe_push(
    file: _Reference, repo: str, **settings: Unpack[_RecipePushSettings]
) -> _PushResult: ...
def reproduce(
    repo: str, out: _Reference | None = ..., **settings: Unpack[_Reproduce]
) -> _Reproduction: ...
def extract_lora(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    rank: int | None = ...,
    energy: float | str | None = ...,
    error: float | None = ...,
    **options: Unpack[_Options],
) -> Result: ...
def merge_lora(
    base: _Reference,
    *adapters_and_out: _Reference,
    scale: float | str | Sequence[float] | None = ...,
    **options: Unpack[_Run],
) -> Result: ...
def run(
    recipe: Recipe | _Reference | Mapping[str, Any],
    out: _Reference,
    *,
    base: _Reference | None = ...,
    finetuned: _Reference | None = ...,
    models: Sequence[_Reference] = ...,
    **settings: Unpack[_Run],
) -> Result: ...
def sweep(operation: str, *places: _Reference, **options: Any) -> _Sweep: ...
def diff(
    base: _Reference,
    *checkpoints: _Reference,
    top: float | str | None = ...,
    rank: int | None = ...,
    energy: float | str | None = ...,
    kl: _Reference | None = ...,
    hidden: _Reference | None = ...,
    **settings: Unpack[_Diff],
) -> Diff: ...
def compare(
    checkpoints: Mapping[str, _Reference] | Sequence[_Reference],
    *,
    base: str | None = ...,
    finetuned: str | None = ...,
    line: Iterable[str] = ...,
    in_domain: str | None = ...,
    out_of_domain: str | None = ...,
    force: bool = ...,
) -> Comparison: ...
def search(
    space: _Space | _Reference | Mapping[str, Any],
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    evaluate: str | Callable[..., Mapping[str, Any]],
    metrics: str | Sequence[str],
    **settings: Unpack[_Search],
) -> SearchResult: ...
def search_demo(
    out: _Reference,
    space: _Space | _Reference | Mapping[str, Any] | None = ...,
    *,
    regime: str = ...,
    hands: int = ...,
    base: _Reference | None = ...,
    finetuned: _Reference | None = ...,
    **settings: Unpack[_Search],
) -> SearchResult: ...
def show(checkpoint: _Reference, **settings: Unpack[_OpenSettings]) -> _Contents: ...
def check(
    out: _Reference,
    *,
    load: bool = ...,
    against: _Reference | None = ...,
    sha256: bool = ...,
    **settings: Unpack[_OpenSettings],
) -> _Checked: ...
def evaluate_cards(
    model: _Reference,
    *,
    out: _Reference | None = ...,
    quiet: bool = ...,
    **settings: Unpack[_EvalSettings],
) -> _Evaluation: ...
def evaluate_ccci(
    completer: _Reference,
    *,
    without: Iterable[str] = ...,
    out: _Reference | None = ...,
    quiet: bool = ...,
    **settings: Unpack[_CcciSettings],
) -> _CcciEvaluation: ...
def pack_ccci(
    file: _Reference,
    *,
    hole: str | int | _Place | None = ...,
    root: _Reference | None = ...,
    schema: _Reference | Sequence[_Reference] = ...,
    classpath: _Reference | Sequence[_Reference] = ...,
    budget: int = ...,
    without: str | Iterable[str] = ...,
    depth: int = ...,
) -> _Pack: ...
def work(
    file: _Reference,
    *,
    rank: int | None = ...,
    world_size: int | None = ...,
    **settings: Unpack[_Work],
) -> _Worked: ...
def finish(file: _Reference, **settings: Unpack[_Work]) -> list[Result]: ...
def __getattr__(name: str) -> Any: ...
"""
