"""What the workers of a cluster are handed of a comparison: its inputs, and which matrices are measured with which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import spelled
from ..engine.measurements import Rank, role
from ..engine.node import Measuring
from ..engine.settings import Settings
from ..errors import InputRefused
from ..output import manifest
from ..output.places import Reference
from ..plan.pairing import Pairing
from .opening import opened, refuse_changed_inputs
from .pinning import pinned
from .settings import OpenSettings


@dataclass(frozen=True)
class Inputs:
    """The checkpoints of a comparison as the driver opened them; see `engine.node.Inputs`.

    Attributes:
        references: by role, as any machine finds them.
        seen: by role, what has to be the same on every machine: names, sizes and headers of the
            weight files, the commit, and a hash of samples of the values.
    """

    references: Mapping[str, str]
    settings: OpenSettings
    seen: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(
        cls,
        references: Mapping[str, Reference],
        checkpoints: Mapping[str, Checkpoint],
        settings: OpenSettings,
    ) -> Inputs:
        """Those that were opened by these references."""
        return cls(
            {
                name: pinned(reference, checkpoints[name].identity())
                for name, reference in references.items()
            },
            OpenSettings(settings.allow_pickle, settings.merge_inner_adapters),
            _seen(checkpoints),
        )

    @contextmanager
    def opened(self) -> Iterator[dict[str, Checkpoint]]:
        """The checkpoints by `measurements.role`.

        Raises:
            InputRefused: one of them cannot be opened here, or is another one.
        """
        with opened(self.references, self.settings, by_ranges=True) as checkpoints:
            seen = _seen(checkpoints)
            for name, checkpoint in checkpoints.items():
                if seen[name] != self.seen[name]:
                    raise InputRefused(
                        f"{spelled(name)} ({checkpoint.label})",
                        "is not the checkpoint that the driver sees",
                        "All nodes have to see the same inputs under the same paths.",
                    )
            yield {role(number): each for number, each in enumerate(checkpoints.values())}

    def refuse_changed(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Fail where a file on this machine has changed since it was opened.

        What comes over a network is checked when it is read.

        Raises:
            RunFailed: names the files.
        """
        named = zip(self.references, checkpoints.values(), strict=True)
        refuse_changed_inputs({name: each for name, each in named if not each.is_remote})


@dataclass(frozen=True)
class MeasuringHandout:
    """See `engine.node.MeasuringHandout`."""

    inputs: Inputs
    pairing: Pairing
    rank: Rank
    settings: Settings
    token: str

    def begun(self, node: str) -> Measuring:
        """What a process of a node has open for the comparison."""
        return Measuring(self)


def _seen(checkpoints: Mapping[str, Checkpoint]) -> dict[str, dict[str, Any]]:
    samples = manifest.samples(checkpoints)
    return {
        name: {**each.identity(), "reference": None, "samples": samples.get(name)}
        for name, each in checkpoints.items()
    }
