"""A chat model behind an OpenAI-compatible endpoint, such as vLLM's, asked through one kept client.

The saved token of the Hugging Face Hub is never sent there. A key is taken from `UVMERGE_API_KEY`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import RunFailed, UsageError
from ..text import brief

_NO_KEY = "none"  # without a key, the client would send the token of the Hub
_WAITS_S = (1.0, 4.0, 16.0)  # before a request is repeated
_BUSY = (429, 502, 503, 504)
_LONGEST_ANSWER = 2**20  # characters


def is_address(text: str) -> bool:
    """Whether `text` is meant as the address of an endpoint."""
    return text.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Endpoint:
    """An endpoint that is open for requests.

    Attributes:
        address: its base URL, with or without `/v1`.
        model: the name of the model there; None for the one that the server has.
        client: a `huggingface_hub.InferenceClient`.
        at_once: how many requests are sent at the same time.
    """

    address: str
    model: str | None
    client: Any
    at_once: int

    def answers(
        self,
        chats: Sequence[Sequence[dict[str, str]]],
        seeds: Sequence[int],
        *,
        max_tokens: int,
        temperature: float,
        stop: str | None = None,
    ) -> Iterator[tuple[int, str]]:
        """The number of each chat and its answer, in the order in which answers come.

        Args:
            stop: an answer ends before this text.

        Raises:
            RunFailed: the endpoint cannot be reached, refuses a request, or sends no chat completion.
        """
        from concurrent.futures import ThreadPoolExecutor, as_completed

        common = {
            "model": self.model, "max_tokens": max_tokens, "temperature": temperature,
            "stop": None if stop is None else [stop],
        }  # fmt: skip
        with ThreadPoolExecutor(self.at_once) as pool:
            asked = {
                pool.submit(self._answer, messages=list(chat), seed=seed, **common): number
                for number, (chat, seed) in enumerate(zip(chats, seeds, strict=True))
            }
            failure: BaseException | None = None
            try:
                for future in as_completed(asked):  # after a failure, those that were sent already
                    if future.cancelled():
                        continue
                    if future.exception() is None:
                        yield asked[future], future.result()
                    elif failure is None:
                        failure = future.exception()
                        for other in asked:
                            other.cancel()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
            if failure is not None:
                raise failure

    def _answer(self, **request: Any) -> str:
        """One answer; a busy server is asked again."""
        for wait_s in (*_WAITS_S, None):
            try:
                completion = self.client.chat_completion(**request)
                return (completion.choices[0].message.content or "")[:_LONGEST_ANSWER]
            except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
                status = getattr(getattr(error, "response", None), "status_code", None)
                if status not in _BUSY or wait_s is None:
                    raise self._failed(error, status) from None
            time.sleep(wait_s)
        raise AssertionError("unreachable: the last try returns or raises")

    def _failed(self, error: Exception, status: int | None) -> RunFailed:
        said = brief(" ".join(str(error).split()) or type(error).__name__, 300)
        if status is None:
            do = "Start the server there (its base URL ends with /v1), and run the same command again."
        elif status in (401, 403):
            do = "Set UVMERGE_API_KEY to a key of this server."
        else:
            do = "Check --model-name and --max-tokens, and the log of the server, and run again."
        code = "" if status is None else f"status {status}, "
        return RunFailed(self.address, f"the endpoint gives no answer: {code}{said}", do)


@contextmanager
def opened(
    address: str, model: str | None, *, at_once: int, timeout_s: float
) -> Iterator[Endpoint]:
    """An endpoint, open while the block lasts. The offline mode of the Hub does not concern it.

    Raises:
        UsageError: the address has no host, or holds a password.
    """
    parts = urlsplit(address)
    if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
        do = "Write it like http://localhost:8000/v1; a key goes into UVMERGE_API_KEY."
        raise UsageError(parts.hostname or "MODEL", "is not the base URL of an endpoint", do)
    from huggingface_hub import InferenceClient, constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    try:
        key = os.environ.get("UVMERGE_API_KEY") or _NO_KEY
        with InferenceClient(base_url=address, api_key=key, timeout=timeout_s) as client:
            yield Endpoint(address, model, client, at_once)
    finally:
        constants.HF_HUB_OFFLINE = offline
