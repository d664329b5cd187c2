"""`uvmerge push` and `uvmerge recipe push`: an output or a recipe, whole, to a model of the Hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.roles import mirrored
from ..errors import InputRefused, UsageError, counted
from ..hub import push as hub
from ..hub.items import Item
from ..hub.listing import Listing
from ..hub.private import refuse_private
from ..hub.recipes import of_strangers
from ..hub.references import models_of
from ..output import manifest, pushed
from ..output.places import Reference
from ..output.shared_card import shared_card
from ..recipe.recipe import Recipe
from ..text import expanded, inert, size, two_lines
from .check import check
from .origins import origins_of, sources_of, text_at
from .settings import parse_hub_id, shows
from .sharing_settings import PushSettings, RecipePushSettings

Tell = Callable[[str], None]


@dataclass(frozen=True)
class PushResult:
    """What `push` returns.

    Attributes:
        repo: the model of the Hub.
        commit: the commit that holds all files; None after a dry run.
        pull_request: the number of a pull request; None where the branch has the files.
        was_there: whether every file was there already, so that nothing was sent.
        files: by file its bytes, sha256, and `way`: `sent`, `in the store already`, `copied on the
            server`, `in the commit` or `there already`.
        bytes_sent: bytes of large files that were sent, at most (a Xet store takes only new chunks).
        not_reproducible: why nobody else can make the output again; empty where it can be made.
    """

    repo: str
    commit: str | None = None
    pull_request: int | None = None
    was_there: bool = False
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bytes_sent: int = 0
    not_reproducible: Sequence[str] = ()

    def __repr__(self) -> str:
        return two_lines("PushResult", self.repo, self.summary)

    def __str__(self) -> str:
        rows = (f"{each['way']}  {inert(name)}" for name, each in self.files.items())
        return "\n".join([*rows, *self.not_reproducible, self.summary])

    @property
    def summary(self) -> str:
        """What was done, in a sentence."""
        told = counted(len(self.files), "file")
        if self.commit is None:
            new = sum(e["bytes"] for e in self.files.values() if e["way"] != "there already")
            return f"{told}, of which at most {size(new)} would be sent; nothing was"
        where = f" in pull request {self.pull_request}" if self.pull_request is not None else ""
        if self.was_there:
            return f"was there already{where}: {told} at {self.repo}@{self.commit[:8]}"
        ways = [each["way"] for each in self.files.values()]
        counts = ", ".join(f"{ways.count(way)} {way}" for way in dict.fromkeys(ways))
        sent = f"{size(self.bytes_sent)} of large files sent"
        return f"pushed {told} to {self.repo}@{self.commit[:8]}{where}: {counts}; {sent}"

    def as_data(self) -> dict[str, Any]:
        """The result as JSON-able data."""
        return {
            "repo": self.repo, "commit": self.commit, "pull_request": self.pull_request,
            "was_there": self.was_there, "files": {k: dict(v) for k, v in self.files.items()},
            "bytes_sent": self.bytes_sent, "not_reproducible": list(self.not_reproducible),
        }  # fmt: skip


@shows(PushSettings, watched=False)
def push(
    out: Reference, repo: str, *, tell: Tell = lambda line: None, **settings: Any
) -> PushResult:
    """Push an output to a model of the Hub, whole, in one commit.

    `push` checks the output first. Beside its files go a model card, the recipe (`uvmerge.yaml`) and
    the manifest with a lock: the sha256 of every file and of every input file.

    Args:
        out: a folder that uvmerge wrote.
        repo: the model, like `org/name`; it is made where it is missing.
        tell: is called with a line about each large file.
        settings: `private`, `pr`, `revision`, `dry_run`, `base_id`, `finetuned_id`, `models_id`.

    Raises:
        ProblemsFound: `check` found problems in `out`; exit code 4.
        InputRefused: `out` was not written by uvmerge or holds something private, an id names
            another checkpoint than the input, or the Hub does not let you write.
        RunFailed: someone else has committed meanwhile, or the network failed: run it again.
    """
    chosen = PushSettings.read(settings)
    target, folder = _target(repo, chosen), expanded(out)
    check(folder)
    content = manifest.read_checked(folder)
    if content is None:
        raise InputRefused(
            folder, f"was not written by uvmerge: it has no {manifest.NAME}",
            "Push other folders with `hf upload`.",
        )  # fmt: skip
    origins, listings = origins_of(content, chosen.ids(content["inputs"]))
    missing = pushed.reasons(content, origins)
    before = hub.state(target)
    named = pushed.with_origins(content, origins)
    card = _card(folder, content, origins, before, repo, missing)
    made = {manifest.CARD: card, pushed.RECIPE: pushed.recipe_text(named, missing)}
    sources = sources_of(content, listings)
    kept = [
        Item(name, folder / name, sources.get(name))
        for name in content["files"]
        if name not in made
    ]
    items = [*kept, *(Item(name, each) for name, each in made.items())]
    lock = pushed.manifest_bytes(named, origins, {i.name: i.sha256 for i in items}, made)
    items.append(Item(manifest.NAME, lock))
    title = f"uvmerge: {pushed.told(content)}"
    return _send(target, items, before, title, missing, chosen.dry_run, tell)


@shows(RecipePushSettings, watched=False)
def recipe_push(file: Reference, repo: str, **settings: Any) -> PushResult:
    """Push a recipe to a model of the Hub as its `recipe.yaml`, for `uvmerge run org/name OUT`.

    Args:
        file: a YAML file; the checkpoints that it names are models of the Hub.
        repo: the model, like `org/name`; it is made where it is missing.
        settings: `private`, `pr`, `revision`, `dry_run`.

    Raises:
        RecipeError: the file is no recipe, or names a folder.
        InputRefused: the file holds something private, or the Hub does not let you write.
        RunFailed: someone else has committed meanwhile, or the network failed: run it again.
    """
    chosen = RecipePushSettings.read(settings)
    target, path = _target(repo, chosen), expanded(file)
    recipe = of_strangers(Recipe.load(path), str(file), {})
    before = hub.state(target)
    items = [Item("recipe.yaml", path.read_bytes())]
    if before is None or manifest.CARD not in before.files:
        told = inert(recipe.name or "A recipe for checkpoints")
        text = f"{told}.\n\n```sh\nuvmerge run {repo} OUT\n```\n"
        card = f"---\ntags:\n- uvmerge\n- uvmerge-recipe\n---\n\n# {repo}\n\n{text}"
        items.append(Item(manifest.CARD, card.encode()))
    title = f"uvmerge: the recipe {recipe}"
    return _send(target, items, before, title, [], chosen.dry_run, lambda line: None)


def _card(
    folder: Path,
    content: Mapping[str, Any],
    origins: Mapping[str, pushed.Origin],
    before: Listing | None,
    repo: str,
    missing: Sequence[str],
) -> bytes:
    """The card of an output with its Hub ids, inside the card that is there."""
    own = mirrored(content["inputs"])
    roles = [own, *(role for role in content["inputs"] if role != own)]
    ids = [each for r in roles if r in origins for each in _ids(content["inputs"][r], origins[r])]
    path = folder / manifest.CARD
    there = text_at(before, manifest.CARD)
    role = content["settings"].get("adapter_for")
    label = content["inputs"][role]["reference"] if role in content["inputs"] else None
    card = path.read_bytes() if path.is_file() else b""
    return shared_card(card, there, repo, ids, missing, label, pushed.is_merge(content))


def _ids(identity: Mapping[str, Any], origin: pushed.Origin) -> list[tuple[str, str]]:
    """What a card calls an input, and its Hub id; of a model with an adapter, both are Hub ids."""
    models = models_of(origin.repo, origin.commit)
    if len(models) == 1:
        return [(identity["reference"], origin.repo)]
    return [(model.repo, model.repo) for model in models]


def _send(
    target: hub.Target,
    items: Sequence[Item],
    before: Listing | None,
    title: str,
    missing: Sequence[str],
    dry_run: bool,
    tell: Tell,
) -> PushResult:
    refuse_private(items)
    there = {each.name for each in items if before is not None and each.is_in(before)}
    ways = {each.name: "there already" if each.name in there else "would go" for each in items}
    done = None if dry_run else hub.push(target, items, before, title[:200], tell)
    ways |= {} if done is None else done.ways
    files = {
        each.name: {"bytes": each.size, "sha256": each.sha256, "way": ways[each.name]}
        for each in items
    }
    if done is None:
        return PushResult(target.repo, files=files, not_reproducible=missing)
    return PushResult(
        target.repo, done.commit, done.pull_request, done.was_there, files, done.bytes_sent, missing
    )


def _target(repo: str, settings: RecipePushSettings) -> hub.Target:
    """The model and branch that files go to."""
    if parse_hub_id(repo) is None or ".." in repo:
        raise UsageError("MODEL", f"'{repo}' is no Hub id", "Write it like org/name.")
    return hub.Target(repo, settings.revision, settings.private, settings.pr)
