"""Make a mixture of experts of dense models: `uvmerge.moe("config.yml", out)`.

The mixture is a checkpoint that is put together while it is read, and `passthrough` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..checkpoint.anatomy import anatomy_of
from ..checkpoint.folder import Checkpoint
from ..checkpoint.mixture import layout_of, routers_of
from ..checkpoint.ties import token_embeddings
from ..errors import counted
from ..models import routers
from ..models.prompts import Prompt
from ..output.places import Reference
from ..recipe.file import as_text
from ..recipe.mixture import DRAWN, Expert, Mixture
from ..recipe.recipe import Recipe
from ..recipe.step import RecipeStep
from .engines import refuse_no_engine
from .mixing import MIRRORED, Mixed
from .moe_settings import MoeSettings
from .run import Result, run_opened
from .settings import shows, split_all
from .surgery import Surgery

if TYPE_CHECKING:
    from torch import Tensor

TRAINING = "a mixture of experts wants training: its routers have not learned to choose"


@shows(MoeSettings)
def moe(config: Reference | Mapping[str, Any], out: Reference, **settings: Any) -> Result:
    """Make a mixture of experts of dense models that were fine-tuned from one base.

    Everything but the feed-forward blocks is the base's; the experts' blocks are copied. The rows of the
    routers come from prompts or are drawn. The result wants training.

    Args:
        config: a YAML file, or its content as a dict.
        out: the folder of the output.
        settings: see docs/options.md; and `quiet`, `progress`, `control` of `Watch`.

    Raises:
        UvmergeError: one of its subclasses in `uvmerge.errors`, which says what to do.
    """
    chosen, watch = split_all(MoeSettings, settings)
    asked = Mixture.parse(as_text(config)) if isinstance(config, Mapping) else Mixture.load(config)
    refuse_no_engine(chosen.for_writing())
    surgery = Surgery(chosen.for_writing(), watch)
    models = list(dict.fromkeys([asked.base, *(expert.model for expert in asked.all)]))
    roles = {model: f"models[{number}]" for number, model in enumerate(models)}
    step = RecipeStep.parse("passthrough", {})
    recipe = Recipe((step,), dtype=asked.dtype, mixture=asked.as_data())
    with surgery.opened([out], {role: model for model, role in roles.items()}, recipe) as inputs:
        labels = {model: _label(inputs[role]) for model, role in roles.items()}
        recipe = replace(recipe, mixture=asked.with_models(labels.__getitem__).as_data())
        surgery.mixed = _mixed(asked.with_models(roles.__getitem__), inputs, surgery)
        made = surgery.mixed.checkpoint(inputs)
        made.notes.extend(_notes(asked, surgery.mixed.rows))
        (result,) = run_opened(surgery, [(recipe, out)], {MIRRORED: made})
    assert result is not None
    return result


def _label(checkpoint: Checkpoint) -> str:
    """What identifies a model, without a path."""
    return f"{checkpoint.label}@{checkpoint.commit}" if checkpoint.commit else checkpoint.label


def _mixed(asked: Mixture, inputs: Mapping[str, Checkpoint], surgery: Surgery) -> Mixed:
    """The mixture of inputs by role, its routers computed unless nothing is to be written."""
    base, settings = inputs[asked.base], surgery.settings
    layout = layout_of(base, asked.layout)
    if layout.has_shared and asked.shared is None:
        raise asked.refused(f"a {layout.name} mixture has a shared expert", "Add shared_experts.")
    if asked.shared and not layout.has_shared:
        raise asked.refused(f"a {layout.name} mixture has no shared expert", "Leave it out.")
    rows = None
    if not settings.dry_run:
        if asked.mode not in DRAWN:
            count = sum(len(e.positive) + len(e.negative) for e in asked.all)
            surgery.progress.say(f"routers from {counted(count, 'prompt')} ({asked.mode})")
        rows = _rows(asked, base, routers_of(base, layout), settings.device)
    return Mixed(asked, rows, bool(asked.dtype) or settings.dtype != "keep")


def _notes(asked: Mixture, rows: Tensor | None) -> Iterator[str]:
    """What the plan says of a mixture."""
    shared = " and a shared one" if asked.shared else ""
    yield f"{counted(len(asked.experts), 'expert')}{shared}, {asked.per_token} for each token"
    yield TRAINING
    if rows is not None and (alike := routers.alike_layers(rows[: len(asked.experts)])):
        yield (
            f"in {counted(alike, 'layer')} of {rows.shape[1]} the routers hardly tell two experts"
            " apart: their prompts are too much alike"
        )


def _rows(asked: Mixture, base: Checkpoint, names: Sequence[str], device: str) -> Tensor:
    """The rows (experts, layers, width) of the routers, that of a shared expert last."""
    table = token_embeddings(anatomy_of(base))[0]
    if asked.mode in DRAWN:
        return routers.drawn_rows(names, len(asked.all), table.shape[1], asked.mode, asked.seed)
    folder = base.on_disk()
    if asked.mode == "cheap_embed":
        vector = routers.embedding_vector(lambda row: _embedding(base, row), len(names))
    else:
        from ..engine.reading import resolve_devices

        (where, *_) = resolve_devices(device)
        vector = routers.hidden_vector(folder, where, average=asked.mode == "hidden_avg")
    return routers.prompted_rows(folder, [_prompts(asked, e) for e in asked.all], vector)


def _prompts(asked: Mixture, expert: Expert) -> tuple[list[Prompt], list[Prompt]]:
    where = f"{asked.source}:{expert.line}"
    return (
        [Prompt(where, text) for text in expert.positive],
        [Prompt(where, text) for text in expert.negative],
    )


def _embedding(base: Checkpoint, row: int) -> Tensor:
    """The embedding of a token."""
    import torch

    from ..engine.reading import TORCH_DTYPES

    table = token_embeddings(anatomy_of(base))[0]
    size = table.size_bytes // table.shape[0]
    raw = base.read(table.file, table.offset + row * size, size)
    return torch.frombuffer(raw, dtype=TORCH_DTYPES[table.dtype])
