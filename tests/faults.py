"""Small checkpoints made by hand, the command line in this process, and ways to break both."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
import zoo

Tensors = dict[str, torch.Tensor]

LAYERS, HIDDEN, INNER, VOCABULARY = 3, 16, 24, 32
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN, "torch_dtype": "float32",
}  # fmt: skip
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
NAMES |= {torch.int64: "I64", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
NAMES |= {torch.float8_e4m3fn: "F8_E4M3", torch.int32: "I32", torch.float8_e8m0fnu: "F8_E8M0"}
RESTORE = ("--top", "0.25", "--workers", "1")


@dataclass
class Outcome:
    """What a command line did."""

    code: int
    out: str
    err: str

    def __contains__(self, sentence: str) -> bool:
        return sentence in " ".join(self.err.split())


def tensors(layers: int = LAYERS, hidden: int = HIDDEN, prefix: str = "model.") -> Tensors:
    """The tensors of a small decoder; the same on every call."""
    make = torch.Generator().manual_seed(7)
    inner, found = hidden * 3 // 2, {}
    found[f"{prefix}embed_tokens.weight"] = torch.randn(VOCABULARY, hidden, generator=make)
    for i in range(layers):
        layer = f"{prefix}layers.{i}."
        found[f"{layer}self_attn.q_proj.weight"] = torch.randn(hidden, hidden, generator=make)
        found[f"{layer}mlp.down_proj.weight"] = torch.randn(hidden, inner, generator=make)
        found[f"{layer}input_layernorm.weight"] = torch.ones(hidden)
    found[f"{prefix}norm.weight"] = torch.ones(hidden)
    found["lm_head.weight"] = torch.randn(VOCABULARY, hidden, generator=make)
    return found


def tuned(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """`tensors` after a small fine-tuning: every floating one has moved a little."""
    make = torch.Generator().manual_seed(8)
    return {
        name: (t + 0.05 * torch.randn(t.shape, generator=make).to(t.dtype))
        if t.dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
        else t.clone()
        for name, t in tensors.items()
    }


def spec(tensor: torch.Tensor) -> zoo.Spec:
    """What `zoo.write_safetensors` wants to know of a tensor."""
    flat = tensor.contiguous().view(-1)
    content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return NAMES[tensor.dtype], list(tensor.shape), content


def write(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    shards: int = 0,
    config: Any = CONFIG,
    **side_files: str,
) -> Path:
    """A checkpoint in `folder`: one file, or `shards` files with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=1))
    for name, content in side_files.items():
        (folder / name.replace("__", ".")).write_text(content)
    specs = {name: spec(tensor) for name, tensor in tensors.items()}
    if not shards:
        zoo.write_safetensors(folder / zoo.SINGLE, specs, {"format": "pt"})
        return folder
    names, weight_map = list(specs), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        mine = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        zoo.write_safetensors(folder / file, {n: specs[n] for n in mine}, {"format": "pt"})
        weight_map |= dict.fromkeys(mine, file)
    total = sum(len(content) for _, _, content in specs.values())
    write_index(folder, weight_map, metadata={"total_size": total})
    return folder


def write_index(folder: Path, weight_map: Any, **fields: Any) -> None:
    (folder / zoo.INDEX).write_text(json.dumps(fields | {"weight_map": weight_map}, indent=1))


def change_index(folder: Path, change: Callable[[dict[str, str]], Any]) -> None:
    """Let `change` work on the weight map of `folder`'s index."""
    weight_map = json.loads((folder / zoo.INDEX).read_text())["weight_map"]
    change(weight_map)
    write_index(folder, weight_map)


def pair(folder: Path, *, shards: int = 0, **options: Any) -> tuple[Path, Path, Path]:
    """folder/base, folder/finetuned, and folder/out, which is not there yet."""
    made = tensors(**options)
    base = write(folder / "base", made, shards=shards)
    return base, write(folder / "finetuned", tuned(made), shards=shards), folder / "out"


def uvmerge(*arguments: object) -> Outcome:
    """The command line in this process."""
    from uvmerge.cli import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["uvmerge", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else int(bool(leave.code))
    return Outcome(code, out.getvalue(), err.getvalue())


def restore(base: Path, finetuned: Path, out: Path, *options: object) -> Outcome:
    """`uvmerge restore` with a quarter of the triplets, on one worker."""
    return uvmerge("restore", base, finetuned, out, *RESTORE, *options)


def refused(outcome: Outcome, out: Path, *sentences: str, code: int = 3) -> None:
    """The run was refused with these words, and left nothing beside the inputs."""
    assert outcome.code == code, outcome
    for sentence in sentences:
        assert sentence in outcome, (sentence, outcome.err)
    assert outcome.err.count("error: ") == 1, outcome.err
    assert outcome.out == ""
    assert leftovers(out) == []


def leftovers(out: Path) -> list[str]:
    """What there is under the name of `out`, or a name that begins with it."""
    return sorted(path.name for path in out.parent.iterdir() if path.name.startswith(out.name))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, by its path."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def fresh(base: Path, finetuned: Path, *options: object) -> dict[str, bytes]:
    """What an undisturbed `restore` of this pair writes."""
    out = base.parent / "undisturbed"
    assert restore(base, finetuned, out, *options).code == 0
    return contents(out)


def staging(out: Path) -> Path:
    """The one staging folder beside `out`."""
    (folder,) = out.parent.glob(f"{out.name}.uvmerge-partial-*")
    return folder


def journal(out: Path) -> list[dict[str, Any]]:
    """The lines of the journal of an unfinished run: its head, then one per finished piece."""
    return [json.loads(line) for line in (staging(out) / "journal.jsonl").read_text().splitlines()]


def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """`target` in a process that has torch loaded and has run nothing yet."""
    context = cast(ForkServerContext, multiprocessing.get_context("forkserver"))
    context.set_forkserver_preload(["torch", "faults", "uvmerge.api", "uvmerge.engine.compute"])
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def child(log: str, *arguments: str) -> None:
    """The command line as a whole process: `start(child, log, "restore", …)`."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["uvmerge", *arguments]
    from uvmerge.cli import main

    main()
