"""An operation that is one file in a folder of its own, as if it had been dropped into the package."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from command import Outcome

from uvmerge import operations

HEAD = """
from __future__ import annotations
from typing import Annotated
from ..spectral import Edited, Matrix, Operand
from .options import Option, leaves_equal_inputs_alone

Scale = Annotated[float, Option("factor on the result", -10, 10, example="--scale 0.5")]
"""


def write(folder: Path, name: str, code: str) -> Path:
    """The file of an operation: the usual imports, an option `Scale`, then `code`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(HEAD + textwrap.dedent(code))
    return path


@contextlib.contextmanager
def dropped(folder: Path) -> Iterator[None]:
    """The operations in `folder` are there, for recipes and Python, while the block lasts; one of the
    same name in the package is hidden by them."""
    names = [f"{operations.__name__}.{path.stem}" for path in folder.glob("*.py")]
    with mock.patch.object(operations, "__path__", [str(folder), *operations.__path__]):
        operations.operations.cache_clear()
        for name in names:
            sys.modules.pop(name, None)
        try:
            yield
        finally:
            for name in names:
                sys.modules.pop(name, None)
    operations.operations.cache_clear()


def command(folder: Path, *words: object) -> Outcome:
    """`uvmerge WORDS…` as a process in which the operations of `folder` are there."""
    program = (
        "import sys, uvmerge.operations as o\n"
        f"o.__path__.insert(0, {str(folder)!r})\n"
        f"sys.argv = {['uvmerge', *map(str, words)]!r}\n"
        "from uvmerge.cli.main import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)
