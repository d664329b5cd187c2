"""What the Hub refuses, in one line and a hint."""

from __future__ import annotations

from ..errors import InputRefused


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
