"""Push files to a model of the Hub so that no reader ever sees a part of them.

Large files go first, one by one: what the store has is not sent again, so the same command resumes. One
commit then names all of them. It is made on the commit that was looked at before; where someone else has
committed meanwhile, the Hub refuses. What is too much for one commit becomes a pull request of several,
merged last. huggingface_hub does not repeat a commit: its answer may be lost after the commit was made, so
whether it landed is looked at first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import RunFailed, UvmergeError
from . import listing as listings, session
from .failures import not_pushed
from .items import Item
from .listing import Listing
from .references import Model
from .sending import Route, is_copy_refused, send_large

MOST_FILES = 100  # in one commit; the Hub recommends no more
_PULL_REQUESTS = 5  # the newest, of which one may be ours
_FIRST = (".safetensors", ".bin")  # in a pull request, what names other files follows these


@dataclass(frozen=True)
class Target:
    """Where files go.

    Attributes:
        repo: the model, which is made where it is missing.
        revision: a branch; None for the main one.
        is_private: whether a model that is made is private.
        as_pull_request: leave a pull request, which its owner merges.
    """

    repo: str
    revision: str | None = None
    is_private: bool = False
    as_pull_request: bool = False


@dataclass
class Pushed:
    """What a push did.

    Attributes:
        commit: the commit that holds all files.
        pull_request: its number; None where the branch itself has the files.
        was_there: whether every file was there already.
        ways: by file how it came: `sent`, `in the store already`, `copied on the server`,
            `in the commit`.
        bytes_sent: bytes of large files that were sent; an upper limit where a Xet store
            deduplicates them.
    """

    commit: str
    pull_request: int | None = None
    was_there: bool = False
    ways: dict[str, str] = field(default_factory=dict)
    bytes_sent: int = 0


def state(target: Target) -> Listing | None:
    """What the branch holds now; None where the model does not exist.

    Raises:
        InputRefused: the Hub cannot be reached, the model is gated, or the branch is missing.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return _listed(target, target.revision)
    except GatedRepoError as error:
        raise not_pushed(error, target.repo, target.revision) from None
    except RepositoryNotFoundError:
        return None
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        raise not_pushed(error, target.repo, target.revision) from None


def push(
    target: Target,
    items: Sequence[Item],
    before: Listing | None,
    title: str,
    tell: Callable[[str], None] = lambda line: None,
) -> Pushed:
    """Push files in one commit, or in a pull request where they are too many.

    Args:
        before: what `state` returned; the commit is made on this one.
        title: of the commit.
        tell: is called with a line about each large file.

    Raises:
        InputRefused: the token may not write here, or the Hub cannot be reached.
        RunFailed: someone else has committed since `before`, or the network failed; the same
            command goes on.
    """
    work = partial(_pushed, target, items, title=title, tell=tell)
    try:
        before = before or _created(target)
        try:
            return work(before)
        except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
            if not is_copy_refused(error):
                raise
            tell("the server cannot copy files of the inputs: they are sent")
            return work(before, copies=False)
    except UvmergeError:
        raise
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        raise not_pushed(error, target.repo, target.revision) from None


def _pushed(
    target: Target,
    items: Sequence[Item],
    before: Listing,
    *,
    title: str,
    tell: Callable[[str], None],
    copies: bool = True,
) -> Pushed:
    todo = [each for each in items if not each.is_in(before)]
    if not todo:
        return Pushed(before.commit, was_there=True)
    found, is_many = Pushed(""), len(todo) > MOST_FILES
    by_request = target.as_pull_request or is_many
    request = _request_of(target, todo) if by_request else None
    if request is not None and _has_all(todo, request[1]):
        found.pull_request, found.commit = request[0], request[1].commit
        found.was_there = target.as_pull_request
    else:
        if request is not None:
            todo = [each for each in todo if not each.is_in(request[1])]
        route = Route(target.repo, target.revision, by_request, copies)
        work = todo, send_large(route, todo, found, tell)
        if by_request:
            _in_request(target, before, work, request, found, title)
        else:
            found.commit = _committed(target, before, *work, title)
    if is_many and not target.as_pull_request:
        _merge(target, before, items, found, title)
    return found


def _listed(target: Target, revision: str | None) -> Listing:
    return listings.fetched(Model(target.repo, revision))


def _created(target: Target) -> Listing:
    """A new model, which holds what the Hub puts in it."""
    from huggingface_hub import HfApi

    if target.revision not in (None, "main"):
        what = f"has no branch {target.revision!r}, since there is no such model yet"
        raise RunFailed(target.repo, what, "Push without --revision first.")
    session.patiently(
        lambda: HfApi().create_repo(target.repo, private=target.is_private, exist_ok=True)
    )
    return _listed(target, None)


def _has_all(items: Sequence[Item], listing: Listing) -> bool:
    return all(each.is_in(listing) for each in items)


def _committed(
    target: Target, before: Listing, todo: Sequence[Item], operations: Sequence[Any], title: str
) -> str:
    """The commit with all files; after a lost answer, the one that was made."""

    def landed() -> str | None:
        now = _listed(target, target.revision)
        return now.commit if _has_all(todo, now) else None

    def commit() -> str:
        return str(_create(target, before.commit, operations, title, target.revision).oid)

    return _once(target, commit, landed)


def _in_request(
    target: Target,
    before: Listing,
    work: tuple[Sequence[Item], Sequence[Any]],
    request: tuple[int, Listing] | None,
    found: Pushed,
    title: str,
) -> None:
    """Commits in a pull request, a new one unless an earlier run has begun it: weights first."""
    pairs = sorted(zip(*work, strict=True), key=lambda pair: not pair[0].name.endswith(_FIRST))
    for start in range(0, len(pairs), MOST_FILES):
        part = pairs[start : start + MOST_FILES]
        items, operations = [item for item, _ in part], [operation for _, operation in part]
        if request is None:
            request = _opened(target, before, items, operations, title)
        else:
            number, branch = request[0], f"refs/pr/{request[0]}"
            inside = Target(target.repo, branch)
            _committed(inside, request[1], items, operations, title)
            request = number, _listed(target, branch)
    assert request is not None
    found.pull_request, found.commit = request[0], request[1].commit


def _opened(
    target: Target, before: Listing, items: Sequence[Item], operations: Sequence[Any], title: str
) -> tuple[int, Listing]:
    """A new pull request with its first commit; after a lost answer, the one that was made."""

    def landed() -> int | None:
        request = _request_of(target, items)
        return request[0] if request is not None and _has_all(items, request[1]) else None

    def commit() -> int:
        made = _create(target, before.commit, operations, title, target.revision, create_pr=True)
        return int(made.pr_num)

    number = _once(target, commit, landed)
    return number, _listed(target, f"refs/pr/{number}")


def _request_of(target: Target, todo: Sequence[Item]) -> tuple[int, Listing] | None:
    """The newest open pull request that holds some of these files; None where none does."""
    from huggingface_hub import HfApi

    refs = session.patiently(
        lambda: HfApi().list_repo_refs(target.repo, include_pull_requests=True)
    )
    numbers = [int(each.ref.rpartition("/")[2]) for each in refs.pull_requests or []]
    for number in sorted(numbers, reverse=True)[:_PULL_REQUESTS]:
        listing = _listed(target, f"refs/pr/{number}")
        if any(each.is_in(listing) for each in todo) and _is_open(target, number):
            return number, listing
    return None


def _is_open(target: Target, number: int) -> bool:
    from huggingface_hub import HfApi

    details = session.patiently(lambda: HfApi().get_discussion_details(target.repo, number))
    return details.status in ("open", "draft")


def _merge(
    target: Target, before: Listing, items: Sequence[Item], found: Pushed, title: str
) -> None:
    """Merge the pull request, if its branch still is where it was."""
    from huggingface_hub import HfApi

    number = found.pull_request
    assert number is not None
    if _listed(target, target.revision).commit != before.commit:
        raise _moved(target)

    def merge() -> str:
        HfApi().merge_pull_request(target.repo, number, comment=title)
        return _listed(target, target.revision).commit

    def landed() -> str | None:
        now = _listed(target, target.revision)
        return now.commit if _has_all(items, now) else None

    found.commit = _once(target, merge, landed)


def _once(target: Target, act: Callable[[], Any], landed: Callable[[], Any]) -> Any:
    """What `act` returns; after an answer that was lost, what `landed` finds of it, if anything."""
    has_tried = False

    def attempt() -> Any:
        nonlocal has_tried
        if has_tried and (found := landed()) is not None:
            return found
        has_tried = True
        return act()

    try:
        return session.patiently(attempt)
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        if session.status_of(error) == 412:
            raise _moved(target) from None
        raise


def _create(
    target: Target, parent: str, operations: Sequence[Any], title: str, revision: str | None,
    *, create_pr: bool = False,
) -> Any:  # fmt: skip
    from huggingface_hub import HfApi

    return HfApi().create_commit(
        target.repo, operations, commit_message=title, revision=revision, parent_commit=parent,
        create_pr=create_pr,
    )  # fmt: skip


def _moved(target: Target) -> RunFailed:
    return RunFailed(
        target.repo,
        f"someone else has committed to {target.revision or 'main'} meanwhile; nothing was changed",
        "Look at what is new there, then run the same command again: no large file is sent twice.",
    )
