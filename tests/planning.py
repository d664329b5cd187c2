"""A plan that several ranks do, compared with the command that plans and does everything itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import uvmerge
from uvmerge import InputRefused


def files(folder: Path) -> dict[str, bytes]:
    """Every file of an output."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def worked(file: Path, ranks: tuple[int, ...] = (2, 0, 1)) -> Any:
    """The result of a plan that three ranks have done, in a wrong order and somewhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(file.parent)
        with pytest.raises(InputRefused, match="no rank has begun"):
            uvmerge.finish(file)
        for rank in ranks:
            uvmerge.work(file, rank=rank, world_size=3)
        (result,) = uvmerge.finish(file)
        assert uvmerge.finish(file)[0].was_there
    return result


def assert_same(call: Any, folder: Path) -> None:
    """What ranks make of the plan of a call has the bytes of the call, in every file.

    Args:
        call: takes OUT and settings.
    """
    expected = call(folder / "one" / "out", quiet=True)
    file = folder / "plan.json"
    call(folder / "many" / "out", quiet=True, plan=file)
    result = worked(file)
    one, many = files(folder / "one" / "out"), files(folder / "many" / "out")
    assert one.keys() == many.keys()
    assert not [name for name in one if one[name] != many[name]]
    assert result.edits == expected.edits
    assert not list(folder.glob("*/*.uvmerge-*"))
