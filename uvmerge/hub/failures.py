"""What the Hub refuses, in one line and a hint."""

from __future__ import annotations

from ..errors import InputRefused, RunFailed, UvmergeError


def refusal(
    error: Exception, reference: str, repo: str, revision: str | None, kind: str = "folder"
) -> InputRefused:
    """The refusal of a reference that cannot be had.

    Args:
        error: what huggingface_hub raised.
        kind: what was looked for on this disk first, such as `folder`.
    """
    from huggingface_hub import constants, errors

    if isinstance(error, InputRefused):
        return error
    tried = f"no {kind} {reference!r} here, and from the Hub ({constants.ENDPOINT})"
    check = f"Check the connection, or give a {kind}."
    if isinstance(error, errors.GatedRepoError):
        what = "access is gated"
        do = f"Accept the terms at {constants.ENDPOINT}/{repo}, then `hf auth login`."
    elif isinstance(error, errors.RevisionNotFoundError):
        what, do = f"no revision {revision!r}", "Check the name."
    elif isinstance(error, errors.RepositoryNotFoundError):
        what = "no such model, or it is private"
        do = "Check the spelling; for a private model, `hf auth login`."
    elif isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        what = "not in the local cache, and the Hub cannot be reached"
        do = f"Check the connection (and HF_HUB_OFFLINE), or give a {kind}."
    else:  # what is raised depends on huggingface_hub's HTTP client
        what, do = (str(error).strip() or type(error).__name__).splitlines()[0], check
    return InputRefused(reference, f"{tried}: {what}", do)


def not_pushed(error: Exception, repo: str, revision: str | None) -> UvmergeError:
    """Why nothing can be pushed to a model.

    Args:
        error: what huggingface_hub raised.
    """
    from huggingface_hub import constants, errors

    if isinstance(error, UvmergeError):
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    login = "`hf auth login` with a token that may write there, or set HF_TOKEN."
    if isinstance(error, errors.GatedRepoError):
        return InputRefused(
            repo, "access is gated", f"Accept the terms at {constants.ENDPOINT}/{repo}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        do = "Make it first: hf repos branch create."
        return InputRefused(repo, f"has no branch {revision or 'main'!r}", do)
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        return InputRefused(repo, "the Hub does not let you write there", login)
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return InputRefused(repo, "the Hub cannot be reached: HF_HUB_OFFLINE is set", "Unset it.")
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RunFailed(
        repo, f"the push stopped: {said}",
        "Run the same command again: what the Hub has is not sent twice.",
    )  # fmt: skip
