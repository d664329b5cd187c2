"""What tests need to know of the JDK and the sandbox on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvmerge.tasks.ccci import judge, sandbox
from uvmerge.tasks.ccci.benchmark import tasks
from uvmerge.tasks.ccci.task import Hole

FOUND = judge.java()
TOOLS = judge.available()
needs_jdk = pytest.mark.skipif(isinstance(FOUND, str), reason=str(FOUND))
needs_sandbox = pytest.mark.skipif(isinstance(TOOLS, str), reason=str(TOOLS))


def hole(name: str) -> Hole:
    """The hole with an id."""
    return next(task.hole for task in tasks() if task.hole.id == name)


def running(word: str) -> list[int]:
    """The processes whose command line holds a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended
    return found


def tools(kind: str) -> tuple[sandbox.Java, str]:
    """A JDK and the kind of walls."""
    assert not isinstance(FOUND, str)
    return FOUND, kind
