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
from .lora_settings import EXTRACT_OPTIONS, MERGE_OPTIONS
from .moe_settings import MoeSettings
from .search_settings import SearchSettings
from .settings import (
    AnchorSettings,
    ComputeSettings,
    OpenSettings,
    RunSettings,
    SpreadSettings,
    SweepSettings,
    WorkSettings,
    parameters,
)
from .sharing_settings import PushSettings, RecipePushSettings, ReproduceSettings
from .stub_text import CALLS, HEAD

PACKAGE = Path(__file__).resolve().parent.parent
STUB, DOCS = PACKAGE / "__init__.pyi", PACKAGE.parent / "docs" / "options.md"
REPORT_DOCS = DOCS.with_name("report.md")
CLASSES = (OpenSettings, ComputeSettings, SpreadSettings, SweepSettings, RunSettings)
TAKEN_BY = {
    OpenSettings: "every call that reads a checkpoint: `show`, `check`, and all below",
    ComputeSettings: "every call that decomposes matrices: `search`, and all below",
    SpreadSettings: "every call that several machines can carry out: `diff`, and all below",
    SweepSettings: "every call that writes checkpoints: `sweep`, and all below",
    RunSettings: "every call that writes one checkpoint: the operations and `run`",
}


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
        _typed_dict("_WorkSettings", "TypedDict", parameters(WorkSettings)),
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
            "_Diff": "_SpreadSettings, _Filters, _Watch",
            "_Moe": "_MoeSettings, _Watch",
            "_Work": "_WorkSettings, _Watch",
            "_Reproduce": "_ReproduceSettings, _Watch",
            "_Search": "_SearchSettings, _Watch",
            "_Options": "_RunSettings, _Filters, _Watch",
            "_OptionsButLayers": "_RunSettings, _Others, _Watch",
        }.items()
    ]
    functions = [_function(operation) for operation in operations().values()]
    return "\n".join([HEAD, *classes, "".join(unions), "".join(functions) + CALLS])


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
    lora = _table(EXTRACT_OPTIONS[:3])
    parts.append(f"Options of `extract-lora`, beside filters and most of those above:\n\n{lora}")
    parts.append(f"Options of `merge-lora`, beside those above:\n\n{_table(MERGE_OPTIONS)}")
    parts.append(f"Options of `eval cards`:\n\n{_table(parameters(EvalSettings))}")
    parts.append(
        f"Options of `search`, beside those of `diff` but `--engine` and `--address`:\n\n{_table(_search_options())}"
    )
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
