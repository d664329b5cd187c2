"""A search while it runs: what is made, asked, kept and removed in OUTDIR, in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.sample import sample_digest
from ..errors import InputRefused, UsageError
from ..output import manifest
from ..output.disk import disk_errors
from ..output.lock import lock_of, locked
from ..output.places import (
    Reference,
    check_apart,
    local_folders,
    made_parents,
    refuse_read_only,
    target_of,
)
from ..output.tree import Tree
from ..recipe.recipe import Recipe
from ..recipe.space import Space
from ..tasks.goals import Goal
from ..tasks.searched import Searched
from .evaluator import EvaluationFailed, Evaluator, end_orphan
from .opening import opened
from .points import Points
from .rounds import FOLDERS, Rounds
from .run import run_all
from .search_settings import SearchSettings
from .settings import ComputeSettings, SweepSettings, Watch
from .trials import JOURNAL, opened as opened_trials

if TYPE_CHECKING:
    from ..engine.settings import Settings

HEAD, FORMAT = "search.json", 1


@dataclass(frozen=True)
class _CheckpointSettings(SweepSettings):
    """How a checkpoint of a search is made: as by `run`, with factors that serve every setting."""

    def computing(self, *, needs_torch: bool = True) -> Settings:
        return replace(super().computing(needs_torch=needs_torch), keeps_whole_factors=True)


class Search:
    """One call of `search`.

    Args:
        references: the pair by role.
    """

    def __init__(
        self,
        space: Space,
        references: Mapping[str, Reference],
        out: Reference,
        settings: SearchSettings,
        watch: Watch,
    ) -> None:
        from ..engine.settings import Control

        if settings.layer_map is not None:
            space = replace(space, template=replace(space.template, layer_map=settings.layer_map))
        self.space, self.references, self.settings = space, dict(references), settings
        self.out = target_of(out)
        self.progress, self.control = watch.shown, watch.control or Control()
        shared = {f.name: getattr(settings, f.name) for f in fields(ComputeSettings)}
        shared |= {"factors": settings.factors or self.out / "factors", "layer_map": None}
        self._making = _CheckpointSettings(**shared, force=settings.force, overwrite=True)

    def run(self, evaluator: Evaluator, goals: Sequence[Goal]) -> Searched:
        """Go on with the search until as many settings are tried as the settings say."""
        check_apart(self.out, local_folders(list(self.references.values())))
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(self.out, "is a file", "Name a folder for the search.")
        head = self._head(evaluator, goals)
        with made_parents([self.out]), disk_errors(self.out, self.out):
            refuse_read_only(self.out, self.out if self.out.exists() else self.out.parent)
            with locked(lock_of(self.out)), self.control.listen():
                self._take_up(head)
                points = Points(self.out / "points")
                with opened_trials(self.out, self.space, goals, self.settings.seed) as trials:
                    return Rounds(self, evaluator, tuple(goals), points, trials).result()

    def make(self, name: str, recipe: Recipe) -> Path:
        """The checkpoint of a recipe, made if it is not there whole.

        Raises:
            EvaluationFailed: the setting is none that can be run.
        """
        folder = self.out / "checkpoints" / name
        try:
            run_all(
                [(recipe, folder)], self.references, self._making,
                Watch(quiet=True, control=self.control), keep_same=True,
            )  # fmt: skip
        except UsageError as error:
            raise EvaluationFailed(error.where, error.what, error.do) from error
        return folder

    def _head(self, evaluator: Evaluator, goals: Sequence[Goal]) -> dict[str, Any]:
        """What has to be the same for the search to go on; references to the Hub are pinned."""
        with opened(self.references, self.settings, by_ranges=True) as checkpoints:
            inputs = {
                role: {**each.identity(), "sample": sample_digest(each)}
                for role, each in checkpoints.items()
            }
        for role, each in inputs.items():
            label = each.pop("reference")  # a checkpoint may be called otherwise, or be moved
            if each["commit"] is not None:
                self.references[role] = f"{label}@{each['commit']}"
        return {
            "uvmerge_search_head": FORMAT, "space": self.space.as_data(), "inputs": inputs,
            "evaluation": evaluator.identity, "metrics": [str(goal) for goal in goals],
            "precision": self.settings.precision,
        }  # fmt: skip

    def _take_up(self, head: dict[str, Any]) -> None:
        """Make OUTDIR, or refuse one that holds something else than this search."""
        self.out.mkdir(exist_ok=True)
        with Tree.at(self.out) as root:
            if root.status(HEAD) is None:
                if strange := [name for name in root.names() if name != f"{HEAD}.new"]:
                    what = f"is not empty, and holds no search ({strange[0]})"
                    raise InputRefused(self.out, what, "Name another OUTDIR.")
                root.write_whole(HEAD, manifest.to_bytes(head))
            self._compare(root, json.loads(json.dumps(head)))
            for name in FOLDERS:
                root.folder(name, create=True).close()
        end_orphan(self.out / "evaluations")

    def _compare(self, root: Tree, now: dict[str, Any]) -> None:
        """Refuse OUTDIR of another search, unless nothing was evaluated in it yet.

        So a command that failed at its first evaluation can be put right and given again.
        """
        try:
            before = json.loads(root.read(HEAD))
        except ValueError:
            before = None
        before = before if isinstance(before, dict) else {}
        if before == now:
            return
        with suppress(FileNotFoundError), root.folder("points") as points:
            if before.keys() == now.keys() and not points.names():
                root.remove(JOURNAL)
                root.write_whole(HEAD, manifest.to_bytes(now))
                return
        other = [key for key in now if before.get(key) != now[key]]
        what = f"holds a search with other {', '.join(other)}"
        do = "Name another OUTDIR, or run the command that it was begun with."
        raise InputRefused(self.out, what, do)
