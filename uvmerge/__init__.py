"""uvmerge: undo the damage that fine-tuning does to a model's singular vectors.

Every operation of the command line is a function here: `uvmerge.restore(base, finetuned, out)`.
Importing uvmerge imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import Any

from .errors import (
    InputRefused,
    Interrupted,
    Locked,
    ProblemsFound,
    RecipeError,
    RunFailed,
    Unrelated,
    UsageError,
    UvmergeError,
)

__version__ = "0.1.0"

_LAZY = {
    "Checkpoint": "checkpoint.folder:Checkpoint",
    "anchor_build": "api.anchor:anchor_build",
    "anchor_show": "api.anchor:anchor_show",
    "Comparison": "api.compare:Comparison",
    "Recipe": "recipe.recipe:Recipe",
    "Result": "api.run:Result",
    "Diff": "api.results:Diff",
    "SearchResult": "api.search:SearchResult",
    "check": "api.check:check",
    "compare": "api.compare:compare",
    "diff": "api.diff:diff",
    "evaluate_cards": "api.evaluate:evaluate_cards",
    "extract_lora": "api.lora:extract_lora",
    "merge_lora": "api.lora:merge_lora",
    "evaluate_ccci": "api.evaluate_ccci:evaluate_ccci",
    "moe": "api.moe:moe",
    "finish": "api.work:finish",
    "pack_ccci": "api.pack:pack_ccci",
    "push": "api.push:push",
    "recipe_list": "api.recipes:recipe_list",
    "recipe_push": "api.push:recipe_push",
    "recipe_show": "api.recipes:recipe_show",
    "reproduce": "api.reproduce:reproduce",
    "run": "api.run:run",
    "run_demo": "demo.run:run",
    "run_study": "study.run:run",
    "search": "api.search:search",
    "search_demo": "demo.search:search_demo",
    "show": "api.show:show",
    "sweep": "api.sweep:sweep",
    "work": "api.work:work",
}

__all__ = [
    "Checkpoint",
    "Comparison",
    "Diff",
    "InputRefused",
    "Interrupted",
    "Locked",
    "ProblemsFound",
    "Recipe",
    "RecipeError",
    "Result",
    "RunFailed",
    "SearchResult",
    "Unrelated",
    "UsageError",
    "UvmergeError",
    "anchor_build",
    "anchor_show",
    "check",
    "compare",
    "diff",
    "evaluate_cards",
    "evaluate_ccci",
    "extract_lora",
    "finish",
    "merge_lora",
    "moe",
    "pack_ccci",
    "push",
    "recipe_list",
    "recipe_push",
    "recipe_show",
    "reproduce",
    "run",
    "run_demo",
    "run_study",
    "search",
    "search_demo",
    "show",
    "sweep",
    "work",
]


def __getattr__(name: str) -> Any:
    """Import a name of `_LAZY`, or an operation, when it is first used."""
    import importlib.util

    if name in _LAZY:
        module, _, attribute = _LAZY[name].partition(":")
        return getattr(importlib.import_module(f".{module}", __name__), attribute)
    if not name.startswith("_") and importlib.util.find_spec(f".{name}", __name__) is None:
        from .operations import operations

        operation = operations().get(name.replace("_", "-"))
        if operation is not None and operation.name == name:
            from .api.functions import function_for

            return function_for(operation)
    raise AttributeError(f"module 'uvmerge' has no attribute {name!r}")


def __dir__() -> list[str]:
    from .operations import operations

    return sorted([*__all__, *(operation.name for operation in operations().values())])
