"""Bring large files into the store of the Hub, one by one, each in the cheapest way.

A file that the store has is not sent. One that is the same as a file of another model is copied by the
server where client and server can: huggingface_hub 2.x, both models in a Xet store of the same region.
Every other one is sent; a Xet store takes only the chunks that are new to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from ..text import size
from . import session
from .items import Item

if TYPE_CHECKING:
    from .push import Pushed

LARGE_BYTES = 1 << 20  # from here on a file is sent on its own before the commit


@dataclass(frozen=True)
class Route:
    """Where files are sent: a branch or a new pull request of a model; `copies`: whether the server may
    copy files of other models."""

    repo: str
    revision: str | None
    create_pr: bool
    copies: bool = True


def send_large(
    route: Route,
    items: Sequence[Item],
    found: Pushed,
    tell: Callable[[str], None],
) -> list[Any]:
    """Send the large ones of the files; returns the operation of each file for the commit.

    Args:
        found: gets the way of each file, and the bytes sent.
        tell: is called with a line about each large file.
    """
    from huggingface_hub import CommitOperationAdd

    operations = []
    for each in items:
        is_large = each.size >= LARGE_BYTES or each.name.endswith((".safetensors", ".bin"))
        content = each.content if isinstance(each.content, bytes) else str(each.content)
        add = CommitOperationAdd(each.name, content)
        operation: Any = add
        found.ways[each.name] = "in the commit"
        if is_large and _has(route.repo, add):
            found.ways[each.name] = "in the store already"
        elif is_large and route.copies and (copy := _copied(route.repo, each)) is not None:
            operation, found.ways[each.name] = copy, "copied on the server"
        elif is_large:
            found.ways[each.name] = "sent"
        if is_large and operation is add:
            session.patiently(partial(_unwrapped, partial(_uploaded, route, add)))
        if found.ways[each.name] == "sent":
            found.bytes_sent += each.size
        if is_large:
            tell(f"{each.name} ({size(each.size)}): {found.ways[each.name]}")
        operations.append(operation)
    return operations


def _uploaded(route: Route, add: Any) -> None:
    from huggingface_hub import HfApi

    HfApi().preupload_lfs_files(
        route.repo, [add], revision=route.revision, create_pr=route.create_pr
    )


def _has(repo: str, add: Any) -> bool:
    """Whether the store has a file, so that nothing is to be sent."""
    from huggingface_hub.lfs import post_lfs_batch_info

    answer = session.patiently(lambda: post_lfs_batch_info([add.upload_info], None, "model", repo))
    return any(each.get("actions") is None for each in answer[0])


def _copied(repo: str, item: Item) -> Any:
    """The operation that copies a file from another model; None where that cannot be done."""
    from huggingface_hub import CommitOperationCopy, HfApi

    source = item.source
    known = {each.name for each in fields(CommitOperationCopy)}
    if (
        source is None
        or source.repo == repo
        or "src_repo_id" not in known
        or not item.is_at(source)
    ):
        return None
    told = session.patiently(
        lambda: HfApi().get_paths_info(source.repo, [source.name], revision=source.commit)
    )
    if not any(getattr(each, "xet_hash", None) for each in told):
        return None
    origin: dict[str, Any] = {"src_repo_id": source.repo, "src_repo_type": "model"}
    return CommitOperationCopy(source.name, item.name, src_revision=source.commit, **origin)


def is_copy_refused(error: Exception) -> bool:
    """Whether the server could not copy a file from another model, as between two regions."""
    address = str(getattr(getattr(error, "response", None), "url", ""))
    return type(error).__name__ == "FileDuplicationError" or address.endswith("/duplicate")


def _unwrapped(call: Callable[[], None]) -> None:
    """Call and raise the error of the network itself, where huggingface_hub has wrapped it."""
    try:
        call()
    except RuntimeError as error:
        raise (error.__cause__ or error) from None
