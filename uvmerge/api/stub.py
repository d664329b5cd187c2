"""The stub of the package and the tables of docs/options.md, made from the operations and settings, and
what docs/report.md lists of the measures.

`python -m uvmerge.api.stub` writes all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..operations import Operation, operations
from ..operations.options import FILTERS, Parameter
from . import merge_docs
from .asking_settings import CcciSettings, EvalSettings
from .functions import by_name
from .moe_settings import MoeSettings
from .settings import (
    AnchorSettings,
    ComputeSettings,
    OpenSettings,
    RunSettings,
    SearchSettings,
    SweepSettings,
    parameters,
)
from .sharing_settings import PushSettings, RecipePushSettings, ReproduceSettings

PACKAGE = Path(__file__).resolve().parent.parent
STUB, DOCS = PACKAGE / "__init__.pyi", PACKAGE.parent / "docs" / "options.md"
REPORT_DOCS = DOCS.with_name("report.md")
CLASSES = (OpenSettings, ComputeSettings, SweepSettings, RunSettings)
TAKEN_BY = {
    OpenSettings: "every call that reads a checkpoint: `show`, `check`, and all below",
    ComputeSettings: "every call that decomposes matrices: `diff`, and all below",
    SweepSettings: "every call that writes checkpoints: `sweep`, and all below",
    RunSettings: "every call that writes one checkpoint: the operations and `run`",
}

_HEAD = '''"""Types of the public surface, made by `python -m uvmerge.api.stub`."""

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

_CALLS = """def anchor_build(
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
def __getattr__(name: str) -> Any: ...
"""


def stub() -> str:
    """The text of `__init__.pyi`."""
    settings, before = [], "TypedDict"
    for each in CLASSES:
        inherited = [p for base in each.__mro__[1:] if base in CLASSES for p in parameters(base)]
        own = [p for p in parameters(each) if p not in inherited]
        settings.append(_typed_dict(f"_{each.__name__}", before, own))
        before = f"_{each.__name__}"
    layers, *others = FILTERS
    classes = [
        *settings,
        _typed_dict("_EvalSettings", "TypedDict", parameters(EvalSettings)),
        _typed_dict("_SearchSettings", "_ComputeSettings", _search_options()),
        _typed_dict("_AnchorSettings", "TypedDict", parameters(AnchorSettings)),
        _typed_dict("_MoeSettings", "TypedDict", parameters(MoeSettings)),
        _typed_dict("_CcciSettings", "TypedDict", parameters(CcciSettings)),
        _typed_dict("_RecipePushSettings", "TypedDict", parameters(RecipePushSettings)),
        _typed_dict("_PushSettings", "TypedDict", parameters(PushSettings)),
        _typed_dict("_ReproduceSettings", "TypedDict", parameters(ReproduceSettings)),
        _typed_dict("_Others", "TypedDict", others),
        _typed_dict("_Filters", "_Others", [layers]),
    ]
    unions = [
        f"class {name}({bases}, total=False): ...\n"
        for name, bases in {
            "_Run": "_RunSettings, _Watch",
            "_Anchor": "_AnchorSettings, _Filters, _Watch",
            "_Diff": "_ComputeSettings, _Filters, _Watch",
            "_Moe": "_MoeSettings, _Watch",
            "_Reproduce": "_ReproduceSettings, _Watch",
            "_Search": "_SearchSettings, _Watch",
            "_Options": "_RunSettings, _Filters, _Watch",
            "_OptionsButLayers": "_RunSettings, _Others, _Watch",
        }.items()
    ]
    functions = [_function(operation) for operation in operations().values()]
    return "\n".join([_HEAD, *classes, "".join(unions), "".join(functions) + _CALLS])


def _search_options() -> list[Parameter]:
    """The settings of a search that other calls do not have."""
    shared = parameters(ComputeSettings)
    return [p for p in parameters(SearchSettings) if p not in shared]


def _typed_dict(name: str, base: str, keys: Iterable[Parameter]) -> str:
    lines = [f"    {p.name}: {p.annotation}" for p in keys]
    return "\n".join([f"class {name}({base}, total=False):", *lines, ""])


def _function(operation: Operation) -> str:
    own = [f"    {p.name}: {p.annotation} = ...," for p in operation.parameters]
    owns_layers = any(p.name == "layers" for p in operation.parameters)
    inputs = [f"    {name}: {kind}," for name, kind in by_name(operation, "_Reference").items()]
    if operation.takes_several:
        inputs = ["    *places: _Reference,", *(each.replace(",", " = ...,") for each in inputs)]
    elif own:
        inputs.append("    *,")
    lines = [
        f"def {operation.name}(",
        *inputs,
        *own,
        f"    **options: Unpack[_Options{'ButLayers' if owns_layers else ''}],",
        ") -> Result: ...",
    ]
    return "\n".join(lines) + "\n"


def tables() -> str:
    """The tables of docs/options.md: settings by the calls that take them, filters, operations."""
    parts, seen = [], set[str]()
    for settings in CLASSES:
        own = [p for p in parameters(settings) if p.name not in seen]
        seen |= {p.name for p in own}
        parts.append(f"Taken by {TAKEN_BY[settings]}:\n\n{_table(own)}")
    heading = "Filters, taken by `diff`, `sweep`, the operations, and the steps of a recipe:"
    parts.append(f"{heading}\n\n{_table(FILTERS)}")
    for operation in operations().values():
        if operation.parameters:
            parts.append(f"Options of `{operation.command}`:\n\n{_table(operation.parameters)}")
    parts.append(f"Options of `eval cards`:\n\n{_table(parameters(EvalSettings))}")
    parts.append(f"Options of `search`, beside those of `diff`:\n\n{_table(_search_options())}")
    own = [p for p in parameters(AnchorSettings) if p.name in ("dtype", "overwrite", "dry_run")]
    heading = "Options of `anchor build`, besides rank and filters and those above from `--allow-pickle` to"
    parts.append(f"{heading} `--factors`:\n\n{_table(own)}")
    parts.append(f"Options of `eval ccci`:\n\n{_table(parameters(CcciSettings))}")
    parts.append(
        f"Options of `push`; `recipe push` has those before `--base-id`:\n\n{_table(parameters(PushSettings))}"
    )
    parts.append(f"Options of `reproduce`:\n\n{_table(parameters(ReproduceSettings))}")
    return "\n".join(parts)


def _table(rows: Iterable[Parameter]) -> str:
    lines = ["| option | in Python | default | |", "|---|---|---|---|"]
    for p in rows:
        default = p.shown_default if p.option.unset else f"`{p.default}`" if p.shown_default else ""
        about = p.option.help + (f" ({p.range})" if p.range else "")
        cells = (f"`--{p.key}`", f"`{p.name}: {p.annotation}`", default, about)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def docs() -> str:
    """The text of docs/options.md: a part written by hand, and the tables after the mark."""
    text = DOCS.read_text(encoding="utf-8")
    mark = "<!-- from here on made by `python -m uvmerge.api.stub` -->\n"
    return text.partition(mark)[0] + mark + "\n" + tables()


def report_docs() -> str:
    """The text of docs/report.md: what is written by hand, and what is made, each between its marks."""
    from ..report.meaning import documentation, json_keys

    text = REPORT_DOCS.read_text(encoding="utf-8")
    for what, made in (("measures", documentation()), ("keys", json_keys())):
        begin, end = (
            f"<!-- {what}: made by `python -m uvmerge.api.stub` -->\n",
            f"<!-- end of {what} -->",
        )
        before, _, rest = text.partition(begin)
        indent = before.rpartition("\n")[2]
        text = f"{before}{begin}\n{made}\n\n{indent}{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
    DOCS.write_text(docs(), encoding="utf-8")
    REPORT_DOCS.write_text(report_docs(), encoding="utf-8")
    merge_docs.DOCS.write_text(merge_docs.merges_docs(), encoding="utf-8")
