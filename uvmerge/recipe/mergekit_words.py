"""The words of mergekit's YAML: its methods, their parameters and defaults, and where people misplace them.

Method names, parameters and defaults are those of mergekit 0.1.5. A word is looked up here alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REQUIRED = "required"  # as a default: a value must be given
NEEDED, OPTIONAL, COUNTED = "needed", "optional", "counted"  # what a method does with a base_model


@dataclass(frozen=True)
class Word:
    """A parameter of a method.

    Attributes:
        kind: type of its values.
        per_model: whether each model has its own value.
        default: the value where none is given; `REQUIRED` for none.
        option: the option that it is; empty where it changes no byte.
        of_base: whether a base has a value too.
    """

    kind: type
    per_model: bool = False
    default: Any = REQUIRED
    option: str = ""
    of_base: bool = False


@dataclass(frozen=True)
class Method:
    """A method, and what it asks of its inputs.

    Attributes:
        words: its parameters by name.
        base: one of `NEEDED`, `OPTIONAL`, and `COUNTED` (a base is one more model).
        least, most: how many inputs it takes, the base counted.
        divides: whether it divides by the sum of the weights, which must not be 0; where it has a switch
            for that, and it is on.
        fixed: options that the method always has.
    """

    words: Mapping[str, Word]
    base: str = NEEDED
    least: int = 1
    most: int | None = None
    divides: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)


_WEIGHT = Word(float, True, REQUIRED, "weight")
_NO_EFFECT = Word(bool, False, False)


def _arithmetic(normalize: bool, rescale: bool, elects: bool = False, **more: Word) -> Method:
    """A member of the family of task arithmetic.

    Args:
        elects: whether it divides by the weights that agree, element by element.
    """
    words = {
        "int8_mask": _NO_EFFECT,
        "normalize": Word(bool, False, normalize, "normalize"),
        "rescale": Word(bool, False, rescale, "rescale"),
        "lambda": Word(float, False, 1.0, "scale"),
        "weight": _WEIGHT,
        "density": Word(float, True, 1.0),
    }
    fixed = {"rescale_by": "norm"} if rescale else {}
    return Method(words | more, divides=not elects, fixed=fixed)


_DENSITY = Word(float, True, 1.0, "density")
_GAMMA = Word(float, True, 0.01, "gamma")
_EPSILON = Word(float, True, 0.15, "epsilon")
_T = Word(float, False, REQUIRED, "t")

METHODS = {
    "linear": Method(
        {"weight": Word(float, True, REQUIRED, "weight", of_base=True),
         "normalize": Word(bool, False, True, "normalize")},
        COUNTED, divides=True,
    ),
    "slerp": Method({"t": _T}, least=2, most=2),
    "nuslerp": Method(
        {"weight": _WEIGHT,
         "nuslerp_row_wise": Word(bool, False, False, "vectors"),
         "nuslerp_flatten": Word(bool, False, True, "vectors")},
        OPTIONAL, least=2, most=3, divides=True,
    ),
    "multislerp": Method(
        {"weight": _WEIGHT, "normalize_weights": Word(bool, False, True, "normalize"),
         "eps": Word(float, False, 1e-8)},
        OPTIONAL, divides=True,
    ),
    "karcher": Method(
        {"max_iter": Word(int, False, 10, "max_iter"), "tol": Word(float, False, 1e-5, "tol")},
        COUNTED,
    ),
    "task_arithmetic": _arithmetic(False, False),
    "ties": _arithmetic(True, False, True, density=_DENSITY),
    "dare_linear": _arithmetic(False, True, density=_DENSITY),
    "dare_ties": _arithmetic(False, True, True, density=_DENSITY),
    "della": _arithmetic(True, True, True, density=_DENSITY, epsilon=_EPSILON),
    "della_linear": _arithmetic(False, True, density=_DENSITY, epsilon=_EPSILON),
    "breadcrumbs": _arithmetic(False, False, density=_DENSITY, gamma=_GAMMA),
    "breadcrumbs_ties": _arithmetic(False, False, True, density=_DENSITY, gamma=_GAMMA),
    "model_stock": Method({"filter_wise": Word(bool, False, False, "filter_wise")}, least=3),
    "sce": Method(
        {"int8_mask": _NO_EFFECT, "select_topk": Word(float, False, 1.0, "select_topk")},
    ),
    "nearswap": Method({"t": _T}, least=2, most=2),
    "arcee_fusion": Method({}, least=2, most=2),
    "passthrough": Method({"scale": Word(float, True, 1.0, "scale", of_base=True)}, COUNTED, most=1),
}  # fmt: skip
# What the peer has and uvmerge has not, and the nearest way to do it.
OTHER_METHODS = {
    "ram": "The nearest is `merge_method: ties`, which also adds what one model alone changed.",
    "ramplus_tl": "The nearest is `merge_method: ties`.",
}
# Parameters that some method reads.
KNOWN_WORDS = frozenset(
    {word for method in METHODS.values() for word in method.words}
    | {"r", "alpha", "nuslerp_flatten", "smooth", "t", "epsilon", "gamma", "lambda"}
)

LAYOUTS = ("models", "slices", "modules")
TOP = (
    "merge_method", *LAYOUTS, "base_model", "dtype", "out_dtype", "parameters", "tokenizer",
    "tokenizer_source", "chat_template", "name",
)  # fmt: skip
SOURCE = ("model", "parameters")
SLICE_SOURCE = ("model", "layer_range", "parameters")
SLICE = ("sources", "base_model", "parameters", "residual_weight")
MODULE = ("slices", "models", "parameters")
TOKENIZER = ("source", "tokens", "pad_to_multiple_of")
TOKEN = ("source", "force")
CONDITION = ("filter", "value")
# Keys that tell mergekit's YAML from uvmerge's own.
MARKS = ("merge_method", "slices", "base_model", "modules", "experts", "genome")
# Keys of other tools that read the same models, and what does their work.
OTHER_TOOLS = {
    "experts": "is a configuration of mergekit-moe: `uvmerge moe` makes a mixture of experts",
    "gate_mode": "is a configuration of mergekit-moe: `uvmerge moe` makes a mixture of experts",
    "genome": "is a configuration of mergekit-evolve: `uvmerge search` looks for good settings",
}
TEMPLATES = (
    "auto",
    "chatml",
    "llama3",
    "alpaca",
)  # names of chat templates; any other one is written out
DTYPE_NAMES = ("float16", "bfloat16", "float32", "float64")


def misplaced(key: str, place: str) -> str:
    """What to do about a known key that stands in a place where nothing reads it; else empty.

    Args:
        place: where it stands: `top`, `source`, `slice`, `module` or `parameters`.
    """
    if key == "filter":
        return "Write the values as a list: `t: [{filter: self_attn, value: 0.5}, {value: 0.3}]`."
    if key == "revision":
        return "Write it behind the model: `model: org/name@REVISION`."
    if key == "merge_method":
        return "One file has one method: merge part by part, each result a model of the next file."
    if key == "layer_range" and place in ("source", "top"):
        return "Layer ranges stand in `slices:`, each source with its own."
    if key in TOKENIZER and key != "source" and place != "tokenizer":
        return f"Write it under `tokenizer:`, as `tokenizer: {{source: union, {key}: …}}`."
    if key in KNOWN_WORDS and place != "parameters":
        return "Write it under `parameters:`."
    if key in TOP and place != "top":
        return f"`{key}` belongs at the top of the file."
    return ""
