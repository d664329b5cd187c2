"""An output that is one file: staged, journalled and verified like a folder (see `writer`), then renamed.

The staging folder of `writer` holds the file in the making; its last rename puts the file at OUT.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .places import check_file
from .tree import Advance, Tree, unseen
from .writer import Staging, prepared


class FileStaging(Staging):
    """A staging folder of which one file becomes OUT; made by `staged_file`."""

    def read(self, file: str, offset: int, size_bytes: int) -> bytes:
        """The bytes of a finished piece."""
        return b"".join(map(bytes, self.chunks(file, offset, size_bytes)))

    def publish_file(self, name: str, advance: Advance = unseen) -> None:
        """Sync everything to the disk, rename the file `name` to OUT, remove the staging folder.

        An old OUT is replaced in the same step.

        Args:
            advance: called with the number of bytes just synced.
        """
        self._tree.sync_all(advance)
        with Tree.at(self.out.parent) as parent:
            self._tree.rename(name, parent, self.out.name)
            parent.sync()
        self.discard()


@contextmanager
def staged_file(
    out: Path, digest: str, head: dict[str, Any], overwrite: bool
) -> Iterator[FileStaging]:
    """The staging folder of one run, locked; an earlier run of the same plan is resumed."""
    with prepared(out, digest, head, overwrite, check_file) as root:
        staging = FileStaging(out, root, head, overwrite)
        try:
            yield staging
        finally:
            staging.close()
