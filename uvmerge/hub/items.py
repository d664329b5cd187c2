"""Files that go to the Hub, each with its sha256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .listing import Listing
from .session import Address

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Item:
    """One file to push.

    Attributes:
        name: its place in the repository.
        content: its bytes, or where they are on this disk.
        source: a file of another model of the Hub that has the same bytes; None if none is known.
    """

    name: str
    content: Path | bytes
    source: Address | None = None

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """sha256 of the bytes, as the Hub shows it of large files."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        return sha256_of(self.content)

    def is_in(self, listing: Listing) -> bool:
        """Whether a model holds the same bytes under the same name."""
        address = listing.files.get(self.name)
        return address is not None and self.is_at(address)

    def is_at(self, address: Address) -> bool:
        """Whether a file of the Hub has the same bytes."""
        if address.size != self.size:
            return False
        if address.is_large:
            return address.etag == self.sha256
        digest = address.hasher()
        digest.update(
            self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        )
        return digest.hexdigest() == address.etag


def sha256_of(path: Path) -> str:
    """sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()
