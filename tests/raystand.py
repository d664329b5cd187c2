"""A stand-in for Ray in this process, for tests of what needs no cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from uvmerge.engine import node


class Stand(ModuleType):
    """A Ray of three nodes, whose tasks are done when they are handed in."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=OSError, OutOfMemoryError=MemoryError)
        self.given: list[dict[str, Any]] = []
        self.asked: list[Callable[..., Any]] = []
        self.cancelled: list[Any] = []
        self.node = ""  # of the task that runs, where it was given one
        self.found = [
            {"NodeID": name * 8, "NodeManagerHostname": f"host-{name}", "Alive": True,
             "Resources": {"CPU": 2.0, "memory": float(1 << 34)}}
            for name in "abc"
        ]  # fmt: skip
        self.nodes = lambda: self.found
        self.is_initialized = lambda: True
        self.put = lambda value: value

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: self.node or "a" * 8)

    def remote(self, function: Callable[..., Any]) -> Any:
        def options(**wanted: Any) -> Any:
            self.given.append(wanted)

            def remote(*words: Any) -> Result:
                self.asked.append(function)
                self.node = wanted.get("scheduling_strategy", "")
                return Result(function(*words))

            return SimpleNamespace(remote=remote)

        return SimpleNamespace(options=options)

    def get(self, found: Any, timeout: float = 0) -> Any:
        return found.value if isinstance(found, Result) else found

    def wait(self, found: list[Any], num_returns: int = 1, timeout: float = 0) -> Any:
        ready = min(num_returns, 2)  # the others are not ready yet
        return found[:ready], found[ready:]

    def cancel(self, found: Any, force: bool) -> None:
        self.cancelled.append(found)


class Result:
    """What a task returned."""

    def __init__(self, value: Any) -> None:
        self.value = value


def standing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """The stand-in as the package ray, for the time of a test."""
    stand, strategies = Stand(), ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: node  # type: ignore[attr-defined]
    for name, module in (("ray", stand), ("ray.util", ModuleType("ray.util")), (strategies.__name__, strategies)):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    yield stand
    for share in node._shares.values():
        share.close()
    node._shares.clear()
