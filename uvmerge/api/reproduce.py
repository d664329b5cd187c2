"""`uvmerge reproduce`: make a pushed output again from its recipe and lock, and compare every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputRefused, ProblemsFound
from ..hub import listing as listings
from ..hub.failures import refusal
from ..hub.items import Item
from ..hub.listing import Listing
from ..hub.recipes import of_hub, of_strangers
from ..hub.references import model_named
from ..hub.remote import fetch_beside
from ..output import manifest
from ..output.lock_file import Lock, read_lock
from ..output.places import Reference
from ..output.pushed import RECIPE, mixture_of
from ..recipe.mixture import Mixture
from ..recipe.recipe import Recipe
from ..text import expanded, inert, table, two_lines
from . import environment
from .environment import Difference
from .moe import moe
from .origins import origins_of
from .run import Result, run
from .settings import shows, split_all
from .sharing_settings import ReproduceSettings
from .twins import IDENTICAL, Compared, compared

_MADE_BY_PUSH = (
    manifest.CARD,
    manifest.NAME,
    RECIPE,
)  # they name the repository, and are not compared


# Settings of a lock that decide nothing of a mixture of experts, whose tensors are copied.
_NOT_OF_MIXTURES = {"precision", "nonfinite", "emit"}


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` returns.

    Attributes:
        out: the folder that was made.
        files: by file of the lock, how it compares.
        differences: what is not the same in the two environments, with its severity.
    """

    out: Path
    files: Mapping[str, Compared] = field(default_factory=dict)
    differences: Sequence[Difference] = ()

    @property
    def verdict(self) -> str:
        """`identical`, or `equal within X`: the largest relative difference of a tensor."""
        worst = max((each.within for each in self.files.values()), default=0.0)
        is_same = all(each.verdict == IDENTICAL for each in self.files.values())
        return IDENTICAL if is_same else f"equal within {worst:.1e}"

    def __repr__(self) -> str:
        return two_lines("Reproduction", str(self.out), self.verdict)

    def __str__(self) -> str:
        rows = [(inert(name), each.told) for name, each in self.files.items()]
        return "\n".join([*map(str, self.differences), table(("file", "compared"), rows),
                          self.verdict])  # fmt: skip

    def as_data(self) -> dict[str, Any]:
        """The result as JSON-able data."""
        return {
            "out": str(self.out), "verdict": self.verdict,
            "files": {name: each.as_data() for name, each in self.files.items()},
            "environment": [each.as_data() for each in self.differences],
        }  # fmt: skip


@shows(ReproduceSettings)
def reproduce(repo: str, out: Reference | None = None, **settings: Any) -> Reproduction:
    """Make an output of the Hub again, and compare the sha256 of every file with its lock.

    The precision, the shard size and the treatment of NaN and Inf are those of the lock. The model
    card, the recipe and the manifest are not compared: they name the repository.

    Args:
        repo: a model that `uvmerge push` made, like `org/name` or `org/name@revision`.
        out: the folder to write; `NAME-reproduced` in the current folder by default.
        settings: `workers`, `overwrite`; and `quiet`, `progress`, `control` of `Watch`.

    Raises:
        ProblemsFound: a file is different; the error names it and its tensors; exit code 4.
        InputRefused: the model cannot be had, has no lock, or its lock says that it cannot be
            made again.
    """
    chosen, watch = split_all(ReproduceSettings, settings)
    listing = _listed(repo)
    content, lock = _locked(listing)
    recipe = _mixture(listing, content) or _recipe(listing, content)
    _refuse_other_inputs(listing.repo, content, lock)
    target = expanded(out or f"{listing.repo.rpartition('/')[2]}-reproduced")
    watch.shown.say(f"lock: {len(lock.files)} files of {listing.repo}@{listing.commit[:8]}")
    before = environment.differences(content)
    for each in before:
        watch.shown.say(str(each))
    shown = {"quiet": watch.quiet, "progress": watch.progress, "control": watch.control}
    settings = {**lock.settings, "overwrite": chosen.overwrite, **shown}
    if isinstance(recipe, Mixture):
        taken = {key: value for key, value in settings.items() if key not in _NOT_OF_MIXTURES}
        dtype = content["recipe"].get("dtype", "keep")
        done = moe(recipe.as_data(), target, dtype=dtype, **taken)
    else:
        done = run(recipe, target, workers=chosen.workers, **settings)
    found = _files(done, listing, content, lock)
    differences = [*before, *environment.rungs(content, done.edits)]
    problems = [f"{name}: {each.told}" for name, each in found.items() if each.is_problem]
    if problems:
        told = [str(each) for each in differences if each.severity != environment.HARMLESS]
        do = f"Different from {listing.repo}: do not trust that repository, or look at what differs here."
        raise ProblemsFound(listing.repo, problems, "; ".join([do, *told]))
    return Reproduction(target, found, differences)


def _listed(repo: str) -> Listing:
    model = model_named(repo)
    if model is None or "/" not in model.repo:
        raise InputRefused(repo, "is no model of the Hub", "Write it like org/name.")
    try:
        return listings.current(model)
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        raise refusal(error, repo, model.repo, model.revision) from None


def _locked(listing: Listing) -> tuple[dict[str, Any], Lock]:
    """The manifest of a pushed output, and its lock."""
    for name in (manifest.NAME, RECIPE):
        if name not in listing.files:
            raise InputRefused(
                listing.repo, f"has no {name}: `uvmerge push` did not make it",
                "Ask its owner to push it with uvmerge.",
            )  # fmt: skip
    folder = _fetched(listing, manifest.NAME).parent
    content = manifest.read_checked(folder)
    assert content is not None
    lock = read_lock(content, listing.repo)
    if lock.not_reproducible:
        do = "Its owner can push it with --base-id, --finetuned-id or --models-id."
        raise InputRefused(listing.repo, "; ".join(lock.not_reproducible), do)
    return content, lock


def _fetched(listing: Listing, name: str) -> Path:
    try:
        return fetch_beside(listing, name)
    except InputRefused:
        raise
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        raise refusal(error, listing.repo, listing.repo, listing.commit) from None


def _recipe(listing: Listing, content: Mapping[str, Any]) -> Recipe:
    """The recipe, which manifest and `uvmerge.yaml` have to tell in the same way."""
    told = Recipe.load(_fetched(listing, RECIPE))
    recipe = of_strangers(Recipe.from_data(content["recipe"]), listing.repo, {})
    if of_strangers(told, listing.repo, {}) != recipe:
        raise _two_recipes(listing.repo)
    return recipe


def _mixture(listing: Listing, content: Mapping[str, Any]) -> Mixture | None:
    """What `uvmerge moe` was asked for, which manifest and `uvmerge.yaml` have to tell in the same way;
    None of another output."""
    mixture = mixture_of(content)
    if mixture is None:
        return None
    if Mixture.load(_fetched(listing, RECIPE)).as_data() != mixture.as_data():
        raise _two_recipes(listing.repo)
    return mixture.with_models(lambda model: of_hub("source_model", model, listing.repo))


def _two_recipes(repo: str) -> InputRefused:
    what = f"{RECIPE} and {manifest.NAME} hold different recipes"
    return InputRefused(repo, what, "One of them was changed after the push: ask its owner.")


def _refuse_other_inputs(repo: str, content: Mapping[str, Any], lock: Lock) -> None:
    """Refuse inputs whose files have another sha256 than in the lock."""
    origins, _ = origins_of(content, {})
    for role, sha256 in lock.inputs.items():
        found = origins[role].sha256 if role in origins else {}
        if others := [name for name, each in sha256.items() if found.get(name) != each]:
            raise InputRefused(
                repo, f"{role}: {', '.join(others[:3])} of {origins[role].repo} is not the file of the lock",
                "The input is another one now, so the output cannot be made again.",
            )  # fmt: skip


def _files(
    done: Result, listing: Listing, content: Mapping[str, Any], lock: Lock
) -> dict[str, Compared]:
    """How each file that was made compares with the lock and with the Hub."""
    assert isinstance(done.out, Path)
    found: dict[str, Compared] = {}
    torn = []
    for name in (each for each in lock.files if each not in _MADE_BY_PUSH):
        path, address = done.out / name, listing.files.get(name)
        if not path.is_file():
            found[name] = Compared("different", "was not made")
            continue
        item = Item(name, path)
        is_at_hub = address is not None and item.is_at(address)
        if item.sha256 == lock.files[name] and is_at_hub:
            found[name] = Compared(IDENTICAL)
        elif address is None:
            found[name] = Compared("different", "is not at the Hub any more")
        else:
            found[name] = Compared("different", "other bytes")
            torn.append(name)
    extra = {path.name for path in done.out.glob("*.safetensors")} - lock.files.keys()
    found |= {name: Compared("different", "is not in the lock") for name in sorted(extra)}
    return found | compared(done.out, listing, content, lock, torn)
