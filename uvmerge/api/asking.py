"""How any evaluation asks a model, which is a checkpoint on this disk or an endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.adapter import is_adapter
from ..errors import UsageError
from ..hub import endpoint
from ..output.places import Reference, check_apart, local_folders, refuse_read_only, target_of
from .asking_settings import AskSettings
from .opening import open_checkpoint
from .settings import OpenSettings
from .whole import whole_folders

if TYPE_CHECKING:
    from ..hub.endpoint import Endpoint
    from ..models.chat import LocalModel

UNRECORDED = ("device", "batch", "timeout")  # a run may be resumed with others


def checked_out(out: Reference, inputs: list[Reference]) -> Path:
    """The real path of OUT, which is a folder or can become one."""
    target = target_of(out)
    check_apart(target, local_folders(inputs))
    there = next(path for path in (target, *target.parents) if path.exists())
    if not there.is_dir():
        raise UsageError(out, "is a file", "Name a folder.")
    refuse_read_only(out, there)
    return target


def identity(model: str, settings: AskSettings) -> tuple[dict[str, Any], Path]:
    """What identifies the model in the records, and the folder where it lies if it is local."""
    if endpoint.is_address(model):
        return {"url": model, "name": settings.model_name}, Path()
    if settings.model_name is not None:
        raise UsageError("--model-name", "is for the address of an endpoint", "Leave it out.")
    with open_checkpoint(model, OpenSettings()) as checkpoint:
        about = {
            "label": checkpoint.label, "commit": checkpoint.commit, "files": checkpoint.states()
        }  # fmt: skip
        return about, checkpoint.on_disk()


@contextmanager
def opened(model: str, folder: Path, settings: AskSettings) -> Iterator[LocalModel | Endpoint]:
    """The model, ready to answer."""
    if endpoint.is_address(model):
        with endpoint.opened(
            model, settings.model_name, at_once=settings.batch, timeout_s=settings.timeout
        ) as answering:
            yield answering
        return
    from ..engine.reading import resolve_devices
    from ..models.chat import LocalModel

    device = resolve_devices(settings.device)[0]
    with ExitStack() as stack:
        if is_adapter(folder):
            merged = stack.enter_context(open_checkpoint(model, OpenSettings()))
            (folder,) = stack.enter_context(whole_folders([merged], lambda line: None))
        yield LocalModel.load(folder, device, settings.batch)
