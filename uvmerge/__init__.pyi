"""Types of the public surface, made by `python -m uvmerge.api.stub`."""

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

class _OpenSettings(TypedDict, total=False):
    allow_pickle: bool
    merge_inner_adapters: bool

class _ComputeSettings(_OpenSettings, total=False):
    device: str
    precision: Literal["exact", "fast"]
    workers: int
    memory: str | int | None
    factors: str | Path | None
    layer_map: str | None

class _SpreadSettings(_ComputeSettings, total=False):
    engine: Literal["local", "ray"]
    address: str | None

class _SweepSettings(_SpreadSettings, total=False):
    dtype: Literal["keep", "bfloat16", "float16", "float32", "fp32", "fp16", "bf16"]
    tokenizer: str | None
    pad_to_multiple_of: int | None
    max_shard_size: str | int | None
    emit: Literal["checkpoint", "adapter"]
    adapter_rank: int | None
    adapter_error: float
    adapter_for: Literal["auto", "base", "finetuned"]
    lossy: bool
    nonfinite: Literal["refuse", "copy"]
    base_id: str | None
    finetuned_id: str | None
    overwrite: bool
    force: bool
    dry_run: bool
    plan: str | Path | None
    estimate: bool

class _RunSettings(_SweepSettings, total=False):
    report: str | Path | None

class _EvalSettings(TypedDict, total=False):
    max_tokens: int
    temperature: float
    seed: int
    batch: int
    model_name: str | None
    timeout: float
    device: str
    rule: Literal["id", "ood", "both"]
    hands: int
    attempts: int

class _SearchSettings(_ComputeSettings, total=False):
    trials: int
    trial_timeout: float | None
    seed: int
    force: bool

class _AnchorSettings(TypedDict, total=False):
    allow_pickle: bool
    merge_inner_adapters: bool
    device: str
    precision: Literal["exact", "fast"]
    workers: int
    memory: str | int | None
    factors: str | Path | None
    dtype: Literal["bfloat16", "float32", "bf16", "fp32"]
    overwrite: bool
    dry_run: bool

class _WorkSettings(TypedDict, total=False):
    workers: int
    memory: str | int | None
    factors: str | Path | None

class _MoeSettings(TypedDict, total=False):
    allow_pickle: bool
    merge_inner_adapters: bool
    device: str
    dtype: Literal["keep", "bfloat16", "float16", "float32", "fp32", "fp16", "bf16"]
    max_shard_size: str | int | None
    overwrite: bool
    dry_run: bool
    plan: str | Path | None
    estimate: bool
    engine: Literal["local", "ray"]
    address: str | None

class _CcciSettings(TypedDict, total=False):
    max_tokens: int
    temperature: float
    seed: int
    batch: int
    model_name: str | None
    timeout: float
    device: str
    limit: int | None
    budget: int
    depth: int
    style: Literal["auto", "infill", "instruct", "plain"]
    no_sandbox: bool

class _RecipePushSettings(TypedDict, total=False):
    private: bool
    pr: bool
    revision: str | None
    dry_run: bool

class _PushSettings(TypedDict, total=False):
    private: bool
    pr: bool
    revision: str | None
    dry_run: bool
    base_id: str | None
    finetuned_id: str | None
    models_id: str | Sequence[str] | None

class _ReproduceSettings(TypedDict, total=False):
    workers: int
    overwrite: bool

class _Others(TypedDict, total=False):
    modules: str | Sequence[str] | None
    include: Sequence[str]
    exclude: Sequence[str]
    stack: str | Sequence[str] | None

class _Filters(_Others, total=False):
    layers: str | Sequence[int] | None

class _Run(_RunSettings, _Watch, total=False): ...
class _Anchor(_AnchorSettings, _Filters, _Watch, total=False): ...
class _Diff(_SpreadSettings, _Filters, _Watch, total=False): ...
class _Moe(_MoeSettings, _Watch, total=False): ...
class _Work(_WorkSettings, _Watch, total=False): ...
class _Reproduce(_ReproduceSettings, _Watch, total=False): ...
class _Search(_SearchSettings, _Watch, total=False): ...
class _Options(_RunSettings, _Filters, _Watch, total=False): ...
class _OptionsButLayers(_RunSettings, _Others, _Watch, total=False): ...

def arcee_fusion(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    **options: Unpack[_Options],
) -> Result: ...
def breadcrumbs(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    gamma: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    normalize: bool = ...,
    rescale: bool = ...,
    **options: Unpack[_Options],
) -> Result: ...
def breadcrumbs_ties(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    gamma: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    normalize: bool = ...,
    rescale: bool = ...,
    **options: Unpack[_Options],
) -> Result: ...
def damp_intruders(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    threshold: float | Mapping[str, Any] | list[Any] = ...,
    damping: float | Mapping[str, Any] | list[Any] = ...,
    first: int | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def dare_linear(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    normalize: bool = ...,
    rescale: bool = ...,
    rescale_by: Literal["probability", "norm"] = ...,
    seed: int = ...,
    **options: Unpack[_Options],
) -> Result: ...
def dare_ties(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    normalize: bool = ...,
    rescale: bool = ...,
    rescale_by: Literal["probability", "norm"] = ...,
    seed: int = ...,
    **options: Unpack[_Options],
) -> Result: ...
def della(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    epsilon: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    normalize: bool = ...,
    rescale: bool = ...,
    rescale_by: Literal["probability", "norm"] = ...,
    seed: int = ...,
    **options: Unpack[_Options],
) -> Result: ...
def della_linear(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    epsilon: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    normalize: bool = ...,
    rescale: bool = ...,
    rescale_by: Literal["probability", "norm"] = ...,
    seed: int = ...,
    **options: Unpack[_Options],
) -> Result: ...
def denoise(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    **options: Unpack[_Options],
) -> Result: ...
def interpolate(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def iso_c(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def iso_cts(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    common: float | str | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def karcher(
    *places: _Reference,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    max_iter: int | Mapping[str, Any] | list[Any] = ...,
    tol: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def knots(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    method: Literal["ties", "task-arithmetic"] = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def linear(
    *places: _Reference,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    normalize: bool = ...,
    **options: Unpack[_Options],
) -> Result: ...
def lines(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    start: float | Mapping[str, Any] | list[Any] = ...,
    slope: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def model_stock(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    filter_wise: bool = ...,
    **options: Unpack[_Options],
) -> Result: ...
def multislerp(
    *places: _Reference,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    normalize: bool = ...,
    deltas: bool = ...,
    **options: Unpack[_Options],
) -> Result: ...
def nearswap(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    t: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def nuslerp(
    *places: _Reference,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    deltas: bool = ...,
    vectors: Literal["whole", "rows", "columns"] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def passthrough(
    *places: _Reference,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    scale: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def project(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    top: float | str | Mapping[str, Any] | list[Any] | None = ...,
    rank: int | Mapping[str, Any] | list[Any] | None = ...,
    energy: float | str | Mapping[str, Any] | list[Any] | None = ...,
    side: Literal["two", "left", "right"] = ...,
    alpha: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def reset_layers(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    frac: float | str | Mapping[str, Any] | list[Any] | None = ...,
    layers: str | Sequence[int] | None = ...,
    from_: Literal["first", "last"] = ...,
    also: str | Sequence[str] = ...,
    matrices_only: bool = ...,
    **options: Unpack[_OptionsButLayers],
) -> Result: ...
def restore(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    top: float | str | Mapping[str, Any] | list[Any] | None = ...,
    rank: int | Mapping[str, Any] | list[Any] | None = ...,
    energy: float | str | Mapping[str, Any] | list[Any] | None = ...,
    tail: float | str | Mapping[str, Any] | list[Any] | None = ...,
    tail_rank: int | Mapping[str, Any] | list[Any] | None = ...,
    values: Literal["finetuned", "base"] = ...,
    alpha: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def sce(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    select_topk: float | str | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def slerp(
    *places: _Reference,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    t: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def subspace_boosting(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    method: Literal["task-arithmetic", "ties"] = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    share: float | str | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def svc(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    method: Literal["task-arithmetic", "ties", "tsv", "iso-c"] = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    alpha: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def swap(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    left: bool = ...,
    right: bool = ...,
    top: float | str | Mapping[str, Any] | list[Any] | None = ...,
    rank: int | Mapping[str, Any] | list[Any] | None = ...,
    energy: float | str | Mapping[str, Any] | list[Any] | None = ...,
    align: Literal["procrustes", "match", "sign"] = ...,
    alpha: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def task_arithmetic(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    normalize: bool = ...,
    **options: Unpack[_Options],
) -> Result: ...
def ties(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    density: float | str | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    normalize: bool = ...,
    rescale: bool = ...,
    **options: Unpack[_Options],
) -> Result: ...
def truncate(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    top: float | str | Mapping[str, Any] | list[Any] | None = ...,
    rank: int | Mapping[str, Any] | list[Any] | None = ...,
    energy: float | str | Mapping[str, Any] | list[Any] | None = ...,
    drop: bool = ...,
    **options: Unpack[_Options],
) -> Result: ...
def tsv(
    *places: _Reference,
    base: _Reference = ...,
    models: Sequence[_Reference] = ...,
    out: _Reference = ...,
    weight: float | Mapping[str, Any] | list[Any] | tuple[Any, ...] = ...,
    scale: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def values(
    base: _Reference,
    finetuned: _Reference,
    out: _Reference,
    *,
    top: float | str | Mapping[str, Any] | list[Any] | None = ...,
    rank: int | Mapping[str, Any] | list[Any] | None = ...,
    energy: float | str | Mapping[str, Any] | list[Any] | None = ...,
    alpha: float | Mapping[str, Any] | list[Any] = ...,
    **options: Unpack[_Options],
) -> Result: ...
def anchor_build(
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
