"""The model card of an output: metadata for the Hub, what was edited, and how to go on.

The card holds no time, absolute path, user name or token. Of the fine-tuned checkpoint's card it
takes over what holds of the output too, and nothing that points to another repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from ..checkpoint.composed import ComposedCheckpoint
from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import BASE, FINETUNED, by_name
from ..errors import RecipeError, counted
from ..operations.options import FILTERS
from ..operations.varying import as_data
from ..plan import words
from ..plan.steps import Plan
from ..recipe.file import as_text
from ..recipe.reader import Reader, compose
from ..recipe.step import RecipeStep
from ..text import as_code, brief, inert
from .commands import Command, after_adapter, after_edit
from .manifest import CARD, NAME

# Of a card, this much of its start is looked at, and of the lines of one key.
CARD_BYTES, KEY_BYTES = 16 << 20, 64 << 10
MOST_TAGS, MOST_ROWS = 30, 60
_FRONT = re.compile(rb"\s*---\n(.*?\n)---\n", re.DOTALL)
_PLAIN_TITLE = re.compile(r"\w[\w .+-]*")
# What is taken over of the metadata, where it has this form. Links to repositories have not.
_SAFE = {
    "library_name": re.compile(r"[a-z0-9][a-z0-9._-]{0,60}"),
    "pipeline_tag": re.compile(r"[a-z0-9-]{1,60}"),
    "license_name": re.compile(r"\w[\w .+-]{0,100}"),
    "license_link": re.compile(r"https://[\w.-]+(/[\w.%#~+-]+){0,20}|\w[\w.-]{0,60}"),
}
# How the paragraph ends that asks for the Hub ids of inputs.
UNKNOWN = "before publishing, add the Hub ids as `base_model` above (`uvmerge push` does it, with `--base-id`, `--finetuned-id` or `--models-id`)."
_TAG = re.compile(r"\w[\w .+-]{0,60}")
# Of libraries and tags: what says how other files hold the weights, and what uvmerge itself adds.
_OF_OTHER_FILES = re.compile(
    r"peft|q?lora|adapters?|adapter-transformers|gguf|mlx|onnx|openvino|llama[-._]?cpp|ctranslate2"
    r"|(auto)?gptq|awq|bitsandbytes|.*quanti[sz]ed.*|\d+-bit|merge|uvmerge.*"
)


def card(
    plan: Plan, checkpoints: Mapping[str, Checkpoint], title: str, ids: Mapping[str, str]
) -> bytes:
    """The model card of the output, with the Hub's metadata.

    Args:
        checkpoints: by role. The card names the one that the output mirrors first.
        title: name of the output's folder.
        ids: Hub ids by role that the user gave; they replace those of the checkpoints.
    """
    own, emission, mixture = checkpoints[plan.own], plan.emission, plan.recipe.mixture
    checkpoints = _with_parents(checkpoints)
    first = plan.own if emission is None else emission.against
    roles = [first, *(role for role in checkpoints if role != first)]
    known = {role: hub_id for role in roles if (hub_id := _hub_id(role, checkpoints, ids))}
    names = {role: known.get(role, checkpoints[role].label) for role in roles}
    converted = any(s.action == "convert" for s in plan.steps)
    rest = f"converted to {plan.recipe.dtype}" if converted else "copied byte for byte"
    rest = rest if emission is None else "a PEFT adapter, every scaling 1"
    asked = mixture or {"steps": [_effective(step) for step in plan.recipe.steps]}
    if plan.recipe.merge is not None:
        asked = plan.recipe.with_references(by_name({role: names[role] for role in plan.inputs}))
    lines = [
        "---",
        yaml.safe_dump(_metadata(plan, own, known), sort_keys=False).strip(),
        "---", "",
        f"# {title if _PLAIN_TITLE.fullmatch(title) else as_code(title)}", "",
        *([inert(plan.recipe.name), ""] if plan.recipe.name else []),
        *([inert(plan.recipe.description), ""] if plan.recipe.description else []),
        f"{_how_made(plan, list(names.values()))} with uvmerge: {words.summary(plan)}"
        f" ({rest}).", "",
        *_table(plan), "",
        *_fenced("yaml", as_text(asked).strip()), "",
        f"`{NAME}` holds the inputs, the rank of every edit, and a hash of every file"
        + (":" if mixture else "; it is also a recipe:"), "",
        *_fenced("sh", "\n".join(_commands(plan, names, title))),
        *_unknown([checkpoints[role].label for role in roles if role not in known]),
    ]  # fmt: skip
    return ("\n".join(lines) + "\n").encode()


def _with_parents(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The inputs by role, then what those are made of that are put together, as far as it is no input."""
    found = dict(checkpoints)
    labels = {each.label for each in found.values()}
    for role, checkpoint in checkpoints.items():
        several = checkpoint.parents if isinstance(checkpoint, ComposedCheckpoint) else ()
        for number, each in enumerate(several):
            if each.label not in labels:
                labels.add(each.label)
                found[f"{role}, {number}"] = each
    return found


def _hub_id(role: str, checkpoints: Mapping[str, Checkpoint], ids: Mapping[str, str]) -> str | None:
    checkpoint = checkpoints[role]
    return ids.get(role, checkpoint.label if checkpoint.commit is not None else None)


def _metadata(plan: Plan, own: Checkpoint, known: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of the card; `known` are Hub ids of the inputs by role, the first one first."""
    found = _inherited(own)
    metadata: dict[str, Any] = {}
    if plan.emission is not None:
        if hub_id := known.get(plan.emission.against):
            metadata = {"base_model": [hub_id], "base_model_relation": "adapter"}
        tags = ["uvmerge", "lora", *(f"uvmerge-{s.operation.command}" for s in plan.recipe.steps)]
        tags = list(dict.fromkeys([*tags, *found.pop("tags", ())]))
        return metadata | {"library_name": "peft", "tags": tags} | found | {"library_name": "peft"}
    if known:
        # A model with an adapter is `model@commit+adapter`.
        parts = [part.partition("@")[0] for hub_id in known.values() for part in hub_id.split("+")]
        metadata["base_model"] = list(dict.fromkeys(parts))
        merges = len(parts) > 1 or any(s.operation.takes_several for s in plan.recipe.steps)
        metadata["base_model_relation"] = "merge" if merges else "finetune"
    modules = "modules.json" in own.side_names()
    metadata["library_name"] = "sentence-transformers" if modules else "transformers"
    made = ["moe"] if plan.recipe.mixture else [s.operation.command for s in plan.recipe.steps]
    tags = ["uvmerge", "merge", *(f"uvmerge-{command}" for command in made)]
    metadata["tags"] = list(dict.fromkeys([*tags, *found.pop("tags", ())]))
    return metadata | found


def _inherited(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the card of a checkpoint says that holds of an edit of it too."""
    found: dict[str, Any] = {}
    front = _front(checkpoint)
    for key, safe in _SAFE.items():
        value = said(front, key)
        if (
            isinstance(value, str)
            and safe.fullmatch(value)
            and not _OF_OTHER_FILES.fullmatch(value)
        ):
            found[key] = value
    tags = said(front, "tags")
    tags = [tag for tag in tags if _TAG.fullmatch(tag)] if isinstance(tags, list) else []
    found["tags"] = [tag for tag in tags if not _OF_OTHER_FILES.fullmatch(tag)][:MOST_TAGS]
    licence = said(front, "license")
    if licence is None:
        return {key: value for key, value in found.items() if not key.startswith("license")}
    return found | {"license": licence}


def _front(checkpoint: Checkpoint) -> bytes:
    """The metadata of a checkpoint's card, in YAML; empty where there is none."""
    if CARD not in checkpoint.side_names():
        return b""
    start = checkpoint.side_start(CARD, CARD_BYTES).replace(b"\r\n", b"\n")
    front = _FRONT.match(start)
    return front[1] if front else b""


def said(front: bytes, key: str) -> str | list[str] | None:
    """What the metadata of a card says under a key: a text or several, else None.

    Of the metadata, which strangers write, the lines of this key alone are parsed, by the strict
    reader of recipes.
    """
    of_key = re.compile(rb"^%s:.*\n(?:[ \t-].*\n)*" % key.encode(), re.MULTILINE)
    lines = of_key.search(front)
    if not lines:
        return None
    try:
        (found,) = Reader(CARD).mapping(compose(lines[0][:KEY_BYTES], CARD)).values()
        value = Reader(CARD).value(found.value)
    except RecipeError:
        return None
    texts = value if isinstance(value, list) else [value]
    return value if texts and all(isinstance(text, str) and text for text in texts) else None


def _how_made(plan: Plan, names: Sequence[str]) -> str:
    """How the output was made: `sft` after surgery towards `base`, say, or models merged."""
    own, *others = map(as_code, names)
    if not others:
        return f"{own} after surgery"
    if all(step.operation.edits for step in plan.recipe.steps):
        return f"{own} after surgery towards {' and '.join(others)}"
    return f"{' and '.join([own, *others])} merged"


def _table(plan: Plan) -> Iterator[str]:
    """What was changed, as a table in Markdown."""
    header, rows = plan.change_rows()
    if not rows:
        return
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for name, *others in rows[:MOST_ROWS]:
        cells = [as_code(brief(name)), *map(str, others)]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    if len(rows) > MOST_ROWS:
        yield f"\nand {counted(len(rows) - MOST_ROWS, 'more row')}."


def _effective(step: RecipeStep) -> dict[str, Any]:
    """A step with the value of every option, defaults included, as a recipe file has it."""
    operation = step.operation
    effective = operation.effective(step.options)
    filters = {parameter.key for parameter in FILTERS}
    ((command, said),) = step.as_data().items()
    options = {p.key: effective[p.name] for p in operation.parameters if p.name in effective}
    plain = {key: as_data(value) for key, value in options.items()}
    return {command: plain | {key: value for key, value in said.items() if key in filters}}


def _commands(plan: Plan, names: Mapping[str, str], title: str) -> Iterator[str]:
    """The commands to go on with, beside the folder of the output."""
    told: tuple[Command, ...] = after_edit(names.get(BASE), names.get(FINETUNED), title)
    settings: tuple[str, ...] = ()
    if plan.emission is not None:
        told, settings = after_adapter(names[plan.emission.against], title), plan.emission.options
    words = ("uvmerge", "run", f"{title}/{NAME}", f"{title}-again", *settings)
    again = Command("make it again", words)
    if plan.recipe.mixture is not None:
        words = ("uvmerge", "moe", "config.yml", f"{title}-again")
        again = Command("make it again, from a file with the lines above", words)
    for command in (*told, again):
        yield f"# {command.why}"
        yield inert(command.line)


def _fenced(language: str, text: str) -> list[str]:
    """A block of code, whatever backticks the text holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text, fence]


def _unknown(labels: Sequence[str]) -> list[str]:
    """A paragraph about the inputs that have no Hub id."""
    if not labels:
        return []
    came = "came from a local folder" if len(labels) == 1 else "came from local folders"
    return [
        "",
        f"{' and '.join(map(as_code, labels))} {came}: {UNKNOWN}",
    ]
