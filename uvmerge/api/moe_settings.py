"""The settings of `uvmerge moe`: those of every call that writes a checkpoint which a mixture can have."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from .machine_options import Address, Engine
from .settings import OpenSettings, SweepSettings, parameters

_SHARED = {p.name: p.option for p in parameters(SweepSettings)}


@dataclass(frozen=True)
class MoeSettings(OpenSettings):
    """How a mixture of experts is written."""

    device: Annotated[str, _SHARED["device"]] = "auto"
    dtype: Annotated[Literal["keep", "bfloat16", "float16", "float32"], _SHARED["dtype"]] = "keep"
    max_shard_size: Annotated[int | None, _SHARED["max_shard_size"]] = None
    overwrite: Annotated[bool, _SHARED["overwrite"]] = False
    dry_run: Annotated[bool, _SHARED["dry_run"]] = False
    plan: Annotated[Path | None, _SHARED["plan"]] = None
    estimate: Annotated[bool, _SHARED["estimate"]] = False
    engine: Engine = "local"
    address: Address = None

    def for_writing(self) -> SweepSettings:
        """These settings as every call takes them that writes a checkpoint."""
        return SweepSettings(**asdict(self))
