"""`uvmerge diff`: measure how far fine-tuned checkpoints have moved from their base.

    found = uvmerge.diff(base, finetuned, top=0.2)
    found.save("report")

The flow: references → checkpoints → pairing → engine → findings → report.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import BASE
from ..checkpoint.selection import Selection, parse_layer_map
from ..engine.progress import Progress
from ..engine.settings import Control, Phases, Settings
from ..errors import Interrupted, RunFailed, UsageError, UvmergeError, counted
from ..measure.findings import Behaviour, Hidden, Pair
from ..measure.judgement import UNRELATED_COSINE
from ..operations.options import DEFAULT_TOP, FILTERS, exclusive
from ..output import manifest
from ..output.places import Reference, check_apart
from ..plan import preflight, reads
from ..plan.pairing import Pairing, pair, roles
from ..recipe.recipe import Recipe
from ..recipe.step import RecipeStep
from . import fetching
from .engines import measurement, refuse_models, refuse_no_engine
from .heap import collected_later
from .opening import lengthen_equal_labels, opened, refuse_changed_inputs, say_folders
from .results import Compared, Diff, Entry, Listing
from .settings import RunSettings, SpreadSettings, Watch, shows, split_all
from .whole import whole_folders

if TYPE_CHECKING:
    from .measuring_handout import Inputs


@shows(SpreadSettings, FILTERS)
def diff(
    base: Reference,
    *checkpoints: Reference,
    top: float | str | None = None,
    rank: int | None = None,
    energy: float | str | None = None,
    kl: str | Path | None = None,
    hidden: str | Path | None = None,
    **settings: Any,
) -> Diff:
    """Measure each of `checkpoints` against `base`; every matrix is decomposed once.

    Args:
        top, rank, energy: at most one of these gives k, the number of leading triplets: as a
            fraction of min(m, n) (by default 0.2), as a count, or as the smallest k with that share
            of the base's squared singular values.
        kl: a JSONL file of prompts, on which the models are also run and compared.
        hidden: a JSONL file of prompts, on whose last tokens hidden states are compared.
        settings: the filters `layers`, `modules`, `include`, `exclude` and `stack` choose matrices,
            as for an operation (by default attention and MLP of the decoder layers);
            docs/options.md lists the other settings.

    Returns:
        The findings; for an unrelated pair too, whose `verdict` is `unrelated`.

    Raises:
        InputRefused: a checkpoint cannot be read, or names can be aligned in no way or in
            several ways.
        Unrelated: hardly any name matches.
        UsageError: an option is wrong, or no checkpoint is given.
    """
    if not checkpoints:
        raise UsageError("diff", "compares nothing with the base", "Name one or more checkpoints.")
    exclusive(top=top, rank=rank, energy=energy)
    asked = {"top": top, "rank": rank, "energy": energy}
    asked |= {p.name: settings.pop(p.name) for p in FILTERS if p.name in settings}
    chosen, watch = split_all(SpreadSettings, settings)
    step = RecipeStep.parse("restore", asked)
    references = [base, *checkpoints]
    say_folders(dict(zip(roles(len(references)), references, strict=True)), watch.shown)
    return compare(references, step.options, step.selection, chosen, watch, kl, hidden)


def compare(
    references: Sequence[Reference],
    rank: Mapping[str, Any],
    filters: Selection,
    settings: SpreadSettings,
    watch: Watch,
    kl: str | Path | None = None,
    hidden: str | Path | None = None,
) -> Diff:
    """`diff` with parsed options.

    Args:
        references: the base, then the checkpoints that are measured against it.
        rank: at most one of `top`, `rank`, `energy`, by name.
    """
    refuse_no_engine(settings)
    refuse_models(settings, {"--kl": kl, "--hidden": hidden})
    comparison = Comparison(settings, watch)
    asked = dict(rank) or {"top": DEFAULT_TOP}
    prompts, asked_of_states = _prompts(kl), _prompts(hidden)
    with_models = kl is not None or hidden is not None
    with comparison.opened(references, with_models=with_models) as opened:
        pairing = comparison.paired(opened, filters)
        engine = comparison.engine()
        answers: Sequence[Behaviour | None] = [None] * (len(opened) - 1)
        states: Sequence[Hidden | None] = [None] * (len(opened) - 1)
        if prompts is not None:  # before measuring, which takes long: models may be refused
            answers = comparison.answered(opened, prompts, engine)
        if asked_of_states is not None:
            states = comparison.states(opened, asked_of_states, engine)
        compared, pairs = comparison.measured(pairing, opened, asked, engine)
        compared = [
            replace(each, behaviour=answer, hidden=moved)
            for each, answer, moved in zip(compared, answers, states)
        ]
        return Diff(
            opened[0].label, opened[0].commit, tuple(compared), tuple(pairs),
            _settings_told(asked, filters, engine), manifest.versions(), comparison.seconds(),
            references=tuple(map(str, references)),
        )  # fmt: skip


def report_after(
    recipe: Recipe,
    references: Mapping[str, Reference],
    out: Path,
    settings: RunSettings,
    watch: Watch,
) -> None:
    """Write the report of a finished surgery; an error says that the output itself is finished.

    The other inputs and OUT are each measured against the base, at the first rank that a step of
    the recipe names.

    Args:
        references: the inputs by role; those of the Hub at the commits that were read.
        settings: with the folder of the report.
    """
    report = settings.report
    assert report is not None
    first = BASE if BASE in references else next(iter(references))
    inputs = [references[first], *(r for role, r in references.items() if role != first), out]
    words = shlex.join(map(str, inputs))
    do = f"{out} is finished; for the report: uvmerge diff {words} --out {report}"
    named = (
        {key: step.options[key] for key in ("top", "rank", "energy") if key in step.options}
        for step in recipe.steps
    )
    try:
        found = compare(inputs, next(filter(None, named), {}), Selection(), settings, watch)
        written = found.save(report, overwrite=settings.overwrite)
    except Interrupted as error:
        raise Interrupted(report, error.exit_code - 128, do) from None
    except UvmergeError as error:
        raise RunFailed(report, f"could not be made: {error.where}: {error.what}", do) from error
    for path in written:
        watch.shown.say(f"wrote {path}")


class Comparison:
    """The phases of a comparison, with what they share: settings, watch and the clock.

    Attributes:
        inputs: what other machines are told of the checkpoints; None where no others measure.
    """

    def __init__(self, settings: SpreadSettings, watch: Watch) -> None:
        self.settings, self.progress = settings, watch.shown
        self.control = watch.control or Control()
        self.phases, self.started = Phases(), time.monotonic()
        self.inputs: Inputs | None = None

    @contextmanager
    def opened(
        self, references: Sequence[Reference], *, with_models: bool
    ) -> Iterator[list[Checkpoint]]:
        """The base and the other checkpoints, each with a label of its own."""
        by_role = dict(zip(roles(len(references)), references, strict=True))
        with ExitStack() as stack:
            with self.phases.timed("open"), collected_later():
                whole = tuple(by_role) if with_models else ()
                opening = opened(by_role, self.settings, whole=whole, by_ranges=not with_models)
                found = stack.enter_context(opening)
                self.inputs = self._told(by_role, found)
                checkpoints = list(found.values())
                lengthen_equal_labels(checkpoints)
                if self.settings.factors is not None:
                    factors = self.settings.factors.resolve()
                    check_apart(factors, [each.on_disk() for each in checkpoints])
            yield checkpoints

    def paired(self, opened: Sequence[Checkpoint], filters: Selection) -> Pairing:
        """Which matrices are measured against which; warns of a pair that looks unrelated."""
        with self.phases.timed("plan"), collected_later():
            given = self.settings.layer_map
            layers = None if given is None else parse_layer_map(given)
            pairing = pair(opened[0], opened[1:], filters, layers)
            _warn_unrelated(pairing, opened, self.progress)
        return pairing

    def _told(
        self, references: Mapping[str, Reference], opened: Mapping[str, Checkpoint]
    ) -> Inputs | None:
        if self.settings.engine == "local":
            return None
        from .measuring_handout import Inputs

        return Inputs.of(references, opened, self.settings)

    def engine(self) -> Settings:
        """The settings of the engine; a device that others have to have is not looked for here."""
        with self.phases.timed("import"):
            elsewhere = self.inputs is not None and self.settings.device != "auto"
            return self.settings.computing(needs_torch=not elsewhere)

    def answered(
        self, opened: Sequence[Checkpoint], prompts: Any, engine: Settings
    ) -> list[Behaviour]:
        """How the predictions of each model differ from those of the base."""
        from ..models.behaviour import behaviours

        models, count = counted(len(opened), "model"), counted(len(prompts), "prompt")
        self.progress.say(f"running {models} on {count}")
        with self.phases.timed("kl"), whole_folders(opened, self.progress.say) as folders:
            return behaviours(folders[0], folders[1:], prompts, device=engine.devices[0])

    def states(self, opened: Sequence[Checkpoint], prompts: Any, engine: Settings) -> list[Hidden]:
        """How the hidden states of each model differ from those of the base."""
        from ..models.hidden import hidden_states

        self.progress.say(f"reading hidden states of {counted(len(opened), 'model')}")
        with self.phases.timed("hidden"), whole_folders(opened, self.progress.say) as folders:
            return hidden_states(folders[0], folders[1:], prompts, device=engine.devices[0])

    def measured(
        self,
        pairing: Pairing,
        opened: Sequence[Checkpoint],
        asked: Mapping[str, Any],
        engine: Settings,
    ) -> tuple[list[Compared], list[Pair]]:
        """The findings of each checkpoint, and of each two checkpoints (the base included)."""
        from ..engine import measurements, measuring

        rank = measurements.Rank(**asked)
        by_role = {measurements.role(i): checkpoint for i, checkpoint in enumerate(opened)}
        self.progress.say(
            f"measuring {counted(len(pairing.matches), 'matrix')} of {opened[0].label} against"
            f" {counted(len(opened) - 1, 'checkpoint')} ({engine.device}, {engine.precision})"
        )
        if self.inputs is None:
            measuring.refuse_large(pairing, rank, engine)
        self._fetch(pairing, opened)
        for note in dict.fromkeys(note for each in pairing.partners for note in each.notes):
            self.progress.say(f"note: {note}")
        work = measuring.work_of(pairing, rank)
        with (
            measurement(self, pairing, by_role, rank, engine) as measure,
            self.phases.timed("compare"),
            self.progress.bar(work, self.control),
            self.control.listen(),
        ):
            matches, others = measure()
        if self.control.stop.is_set():
            raise Interrupted("diff", self.control.signal_number, _how_to_go_on(engine))
        refuse_changed_inputs(by_role)
        compared = [
            Compared(
                checkpoint.label, checkpoint.commit,
                Listing(Entry(**vars(e)) for each in matches if (e := each.entries[i]) is not None),
                Listing(others[i]), tuple(dict.fromkeys([*opened[0].notes, *partners.notes])),
                made_from=manifest.made_from(checkpoint), base=opened[0].label,
            )
            for i, (checkpoint, partners) in enumerate(zip(opened[1:], pairing.partners))
        ]  # fmt: skip
        return compared, measurements.pairs_of(matches, len(opened))

    def _fetch(self, pairing: Pairing, opened: Sequence[Checkpoint]) -> None:
        """Fetch what is measured of checkpoints that are elsewhere; nodes do so themselves."""
        by_role = dict(zip(roles(len(opened)), opened, strict=True))
        wanted = fetching.to_fetch(reads.of_pairing(pairing, by_role), by_role)
        if wanted:
            fetching.say(wanted, self.progress)
        if wanted and self.inputs is None:
            with self.phases.timed("fetch"):
                fetching.fetch(wanted, self.progress, self.control)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase, and in total."""
        return {**self.phases.seconds, "total": time.monotonic() - self.started}


def _how_to_go_on(engine: Settings) -> str:
    if engine.factors is None:
        return "Nothing was written."
    return f"What is decomposed is in {engine.factors}; the same command goes on from there."


def _warn_unrelated(pairing: Pairing, opened: Sequence[Checkpoint], progress: Progress) -> None:
    """Warn of pairs that look unrelated in a sample, since measuring all matrices may take long."""
    base = opened[0]
    for i, checkpoint in enumerate(opened[1:]):
        plain = [
            (base.tensors[match.base.tensor], checkpoint.tensors[view.tensor])
            for match in pairing.matches
            if (view := match.others[i]) is not None and view.expert is None is match.base.expert
        ]
        cosines = preflight.sampled_cosines(plain, base, checkpoint).values()
        cosine = median(cosines) if cosines else 1.0
        if cosine < UNRELATED_COSINE:
            progress.say(
                f"warning: {base.label} and {checkpoint.label} look unrelated:"
                f" {preflight.unrelated(cosine)} (a sample)"
            )


def _prompts(path: str | Path | None) -> Any:
    if path is None:
        return None
    from ..models.prompts import read_prompts

    return read_prompts(path)


def _settings_told(
    asked: Mapping[str, Any], filters: Selection, engine: Settings
) -> dict[str, Any]:
    """The settings, as the report gives them."""
    chosen = {
        "layers": None if filters.layers is None else list(filters.layers),
        "modules": None if filters.modules is None else list(filters.modules),
        "include": list(filters.include), "exclude": list(filters.exclude),
    }  # fmt: skip
    given = {key: value for key, value in chosen.items() if value}
    return {**asked, **given, "device": engine.device, "precision": engine.precision}
