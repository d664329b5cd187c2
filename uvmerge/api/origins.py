"""Where the inputs of an output are on the Hub, and the sha256 of their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checkpoint.roles import mirrored, spelled
from ..checkpoint.sample import sample_digest
from ..errors import InputRefused
from ..hub import listing as listings
from ..hub.failures import refusal
from ..hub.items import sha256_of
from ..hub.listing import Listing
from ..hub.references import Model, models_of
from ..hub.remote import fetch_beside
from ..hub.session import Address
from ..output import manifest
from ..output.pushed import Origin
from .opening import open_checkpoint
from .settings import OpenSettings


def origins_of(
    content: Mapping[str, Any], ids: Mapping[str, str | None]
) -> tuple[dict[str, Origin], dict[str, Listing]]:
    """By role, the inputs that are on the Hub, and what the Hub lists of them.

    Args:
        content: the manifest of an output.
        ids: Hub ids by role, which replace those that the run was given.

    Raises:
        InputRefused: an id names another checkpoint than the input.
    """
    origins: dict[str, Origin] = {}
    found: dict[str, Listing] = {}
    for role, identity in content["inputs"].items():
        told = ids.get(role) or content["settings"].get(f"{role}_id")
        repo = identity["reference"] if identity["commit"] else told
        if repo is None:
            continue
        commit = identity["commit"] or _commit_of(role, repo, content)
        names = {*identity["files"], "config.json", *_of_output(role, content)}
        several = [_listed(*model) for model in models_of(repo, commit)]
        found[role] = several[0]
        sha256 = {n: _sha256(each, n) for each in several for n in names & each.files.keys()}
        origins[role] = Origin(repo, commit, dict(sorted(sha256.items())))
    return origins, found


def sources_of(content: Mapping[str, Any], found: Mapping[str, Listing]) -> dict[str, Address]:
    """By file of the output, the file of an input with the same name, which may be the same one."""
    own = mirrored(content["inputs"])
    roles = [own, *(role for role in content["inputs"] if role != own)]
    listed = [found[role].files for role in roles if role in found]
    return {
        name: next(files[name] for files in listed if name in files)
        for name in content["files"]
        if any(name in files for files in listed)
    }


def text_at(listing: Listing | None, name: str) -> bytes | None:
    """A small file of a model of the Hub; None where it has none."""
    if listing is None or name not in listing.files:
        return None
    return fetch_beside(listing, name).read_bytes()


def _of_output(role: str, content: Mapping[str, Any]) -> set[str]:
    """Files beside the weights that the output takes over from an input."""
    made = {manifest.CARD, manifest.NAME}
    return set(content["files"]) - made if role == mirrored(content["inputs"]) else set()


def _listed(repo: str, commit: str | None) -> Listing:
    try:
        return listings.current(Model(repo, commit))
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        raise refusal(error, f"{repo}@{commit}", repo, commit) from None


def _sha256(listing: Listing, name: str) -> str:
    address = listing.files[name]
    return address.etag if address.is_large else sha256_of(fetch_beside(listing, name))


def _commit_of(role: str, repo: str, content: Mapping[str, Any]) -> str:
    """The commit of a model of the Hub, which must hold the weights that an input had."""
    checkpoint = open_checkpoint(f"hf://{repo}", OpenSettings(), whole=False, by_ranges=True)
    with checkpoint:
        files = content["inputs"][role]["files"]
        if checkpoint.identity()["files"] != files:
            what = "its weight files have other headers"
        elif content["samples"].get(role) != sample_digest(checkpoint):
            what = "its weights differ"
        else:
            assert checkpoint.commit is not None
            return checkpoint.commit
    raise InputRefused(
        repo, f"is not the {spelled(role)} checkpoint of this output: {what}",
        "Name the model that holds it, or push that checkpoint first.",
    )  # fmt: skip
