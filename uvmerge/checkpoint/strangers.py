"""Folders and files that are no readable checkpoint: what they are, and which command helps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputRefused, listed
from ..text import brief

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_TRAINER_STATE = ("optimizer", "scheduler", "rng_state", "training_args", "scaler", "global_step")
_POINTERS = {
    b"version https://git-lfs": "git lfs pull",
    b"# xet version": "git xet install, then git pull",
}
_LONGEST_POINTER = 1024  # bytes: a pointer is a few lines of text
_LOAD = "AutoModelForCausalLM.from_pretrained(folder{options}).save_pretrained(new_folder)"


def pointer_command(start: bytes, size_bytes: int) -> str | None:
    """The command that fetches a file of which a pointer is stored; None where it is no pointer."""
    if size_bytes > _LONGEST_POINTER:
        return None
    return next((do for mark, do in _POINTERS.items() if start.startswith(mark)), None)


def refuse_pointer(where: str | Path, start: bytes, size_bytes: int) -> None:
    """Refuse a pointer of git-lfs or xet that stands in the place of a file.

    Args:
        where: the file, for the message.
        start: the first bytes of the file, 32 or more.
        size_bytes: size of the file in bytes.
    """
    if command := pointer_command(start, size_bytes):
        kind = "git-lfs" if command.startswith("git lfs") else "git-xet"
        raise InputRefused(
            where,
            f"is a {kind} pointer of {size_bytes} bytes, not the file itself",
            f"Fetch the files: `{command}` in the repository; or `hf download`.",
        )


def pickles(folder: Path) -> list[Path]:
    """Weight files in Python's pickle format, sorted, without optimizer and trainer files."""
    found = sorted(p for p in folder.iterdir() if p.suffix in PICKLES and p.is_file())
    return [path for path in found if not path.name.startswith(_TRAINER_STATE)]


def weights_beside(folder: Path) -> Iterator[str]:
    """That the folder holds weights of other modules of sentence-transformers, like a Dense one."""
    files = sorted(folder.glob("[0-9]*_*/*"))
    if found := [p for p in files if p.suffix in (".safetensors", *PICKLES) and p.is_file()]:
        names = ", ".join(brief(path.relative_to(folder).as_posix()) for path in found)
        yield f"weights of other modules are copied, never edited or measured: {names}"


def no_weights(folder: Path) -> InputRefused:
    """The refusal of a folder that holds no weights that can be opened."""
    names = sorted(path.name for path in folder.iterdir())
    what, do = next(_diagnoses(folder, names))
    return InputRefused(folder, what, do)


def _diagnoses(folder: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """(what the folder is, what to do), the likeliest first; the last one fits every folder."""
    if "adapter_config.json" in names:
        yield (
            "is a PEFT adapter, not a model",
            "Merge it first: PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(…),"
            " or `uvmerge interpolate BASE ADAPTER NEW_FOLDER --scale 1`.",
        )
    yield from _sharded_training(folder, names)
    yield from _other_formats(names)
    if found := pickles(folder):
        yield (
            f"holds its weights as pickles ({listed([p.name for p in found], 'file')})",
            (
                "Convert them with AutoModel.from_pretrained(folder).save_pretrained(new_folder),"
                " or pass --allow-pickle, which loads them with weights_only=True."
            ),
        )
    checkpoints = [name for name in names if re.fullmatch(r"checkpoint-\d+", name)]
    if checkpoints:
        last = max(checkpoints, key=lambda name: int(name.rpartition("-")[2]))
        yield (
            f"is a trainer's output folder: its weights are in {listed(checkpoints, 'folder')}",
            f"Name one of them: {folder / last}",
        )
    if "model_index.json" in names:
        yield "is a pipeline of diffusers, whose models are in its subfolders", "Name a subfolder."
    if loose := [name for name in names if name.endswith(".safetensors")]:
        yield (
            f"has neither model.safetensors nor an index, only {listed(loose, 'file')}",
            (
                "A sharded checkpoint needs its model.safetensors.index.json; a single file must be"
                " named model.safetensors."
            ),
        )
    index = "model.safetensors.index.json"
    yield "holds no weights", f"A model folder has a model.safetensors or a {index}."


def _sharded_training(folder: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """Diagnoses of FSDP and DeepSpeed checkpoints, which have a file per process."""
    inner = [folder, *(folder / name for name in names if (folder / name).is_dir())]
    fsdp = [path for path in inner if any(path.glob("*.distcp"))]
    if fsdp:
        place = fsdp[0] if fsdp[0] != folder else folder
        yield (
            "holds an FSDP checkpoint (.distcp), a file per process",
            f"Gather it: accelerate merge-weights {place} NEW_FOLDER;"
            " then copy config and tokenizer.",
        )
    if any(re.fullmatch(r"global_step\d+", name) for name in names):
        yield (
            "holds a DeepSpeed checkpoint (global_step…), a file per process",
            "Gather it: python zero_to_fp32.py FOLDER NEW_FOLDER --safe_serialization;"
            " then copy config and tokenizer.",
        )


def _other_formats(names: list[str]) -> Iterator[tuple[str, str]]:
    """Diagnoses of weights in the format of another program."""
    if found := [name for name in names if name.endswith(".gguf")]:
        load = _LOAD.format(options=f', gguf_file="{found[0]}"')
        yield (
            f"holds {listed(found, 'file')} in the format of llama.cpp, mostly quantised",
            f"Take the original weights, or convert it: {load}.",
        )
    if "weights.npz" in names or "weights.safetensors" in names:
        yield (
            "holds weights in MLX's layout (weights.npz or weights.safetensors)",
            "Take the original weights, or convert them: mlx_lm.convert --dequantize.",
        )
    if any(name.startswith("consolidated.") for name in names):
        yield (
            "holds consolidated weights under the names of the publisher's own code",
            (
                "Take the folder of the same model that has model.safetensors, or convert it with"
                " the convert_…_weights_to_hf script of transformers."
            ),
        )
    if any(name in names for name in ("tf_model.h5", "flax_model.msgpack")):
        yield (
            "holds weights of TensorFlow or Flax alone",
            f"Convert them under transformers 4.x: {_LOAD.format(options=', from_tf=True')}.",
        )
