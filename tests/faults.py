"""Small checkpoints made by hand, the command line in this process, and ways to break both."""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib.util
import io
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
import zoo

Tensors = dict[str, torch.Tensor]
Pair = tuple[Path, Path, Path]  # base, fine-tuned, and OUT, which is not there yet

LAYERS, HIDDEN, VOCABULARY = 3, 16, 32
Q, DOWN = "model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.mlp.down_proj.weight"
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN, "torch_dtype": "float32",
}  # fmt: skip
FLOATS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
NAMES = FLOATS | {torch.int64: "I64", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
RESTORE = ("--top", "0.25", "--workers", "1")
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
PICTURE = ["report.png"] if HAS_MATPLOTLIB else []
REPORT = ["matrices.csv", "report.html", "report.json", *PICTURE]  # the files of a report, sorted


def _looked_up(module: Any, name: str) -> Any:
    return staticmethod(lambda *words, **named: getattr(module, name)(*words, **named))


# pathlib of Python 3.10 keeps the functions of os and io as they were when it was imported. From here
# on it looks them up, so that a fault put in their place is met there too.
if kept := getattr(pathlib, "_NormalAccessor", None):
    for _name in ("stat", "mkdir", "unlink", "rmdir", "rename", "replace"):
        setattr(kept, _name, _looked_up(os, _name))
    kept.open = _looked_up(io, "open")


@dataclass
class Outcome:
    """What a command line did; `sentence in outcome` looks at its messages, lines joined."""

    code: int
    out: str
    err: str

    def __contains__(self, sentence: str) -> bool:
        return sentence in " ".join(self.err.split())


def tensors(
    layers: int = LAYERS,
    hidden: int = HIDDEN,
    vocabulary: int = VOCABULARY,
    prefix: str = "model.",
    dtype: torch.dtype = torch.float32,
) -> Tensors:
    """The tensors of a small decoder; the same on every call."""
    make = torch.Generator().manual_seed(7)
    shapes = {f"{prefix}embed_tokens.weight": (vocabulary, hidden)}
    for i in range(layers):
        shapes[f"{prefix}layers.{i}.self_attn.q_proj.weight"] = (hidden, hidden)
        shapes[f"{prefix}layers.{i}.mlp.down_proj.weight"] = (hidden, hidden * 3 // 2)
    shapes[HEAD] = (vocabulary, hidden)
    found = {name: torch.randn(shape, generator=make) for name, shape in shapes.items()}
    found |= {
        f"{prefix}layers.{i}.input_layernorm.weight": torch.ones(hidden) for i in range(layers)
    }
    found[f"{prefix}norm.weight"] = torch.ones(hidden)
    return {name: tensor.to(dtype) for name, tensor in found.items()}


def tuned(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """`tensors` after a small fine-tuning: every floating one has moved a little."""
    make = torch.Generator().manual_seed(8)
    return {
        name: (t + 0.05 * torch.randn(t.shape, generator=make)).to(t.dtype)
        if t.dtype in FLOATS else t.clone()
        for name, t in tensors.items()
    }  # fmt: skip


def spec(tensor: torch.Tensor) -> zoo.Spec:
    """What `zoo.write_safetensors` wants to know of a tensor."""
    flat = tensor.contiguous().view(-1)
    content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return NAMES[tensor.dtype], list(tensor.shape), content


def write(
    folder: Path,
    tensors: Mapping[str, torch.Tensor | zoo.Spec],
    *,
    shards: int = 0,
    config: Any = CONFIG,
) -> Path:
    """A checkpoint in `folder`: one file, or `shards` files with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    specs = {n: spec(t) if isinstance(t, torch.Tensor) else t for n, t in tensors.items()}
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


def change_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    """Let `change` work on the weight map of `folder`'s index."""
    index = json.loads((folder / zoo.INDEX).read_text())
    change(index["weight_map"])
    write_index(folder, index["weight_map"], metadata=index["metadata"])


def pair(folder: Path, *, shards: int = 0, config: Any = CONFIG, **options: Any) -> Pair:
    """folder/base and folder/finetuned (with the options of `tensors`), and folder/out."""
    return pair_of(folder, tensors(**options), shards=shards, config=config)


def pair_of(
    folder: Path,
    base: Mapping[str, torch.Tensor],
    finetuned: Mapping[str, torch.Tensor | zoo.Spec] | None = None,
    **options: Any,
) -> Pair:
    """The same with these tensors; the fine-tuned ones are `tuned(base)` unless given."""
    theirs = tuned(base) if finetuned is None else finetuned
    write(folder / "base", base, **options)
    return folder / "base", write(folder / "finetuned", theirs, **options), folder / "out"


def uvmerge(*arguments: object) -> Outcome:
    """The command line in this process."""
    from uvmerge.cli.main import main

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


def done(outcome: Outcome, *sentences: str) -> Outcome:
    """The run succeeded, and said these sentences."""
    assert outcome.code == 0, outcome
    for sentence in sentences:
        assert sentence in outcome, (sentence, outcome.err)
    return outcome


def refused(pair: Pair, *sentences: str, code: int = 3, options: tuple[object, ...] = ()) -> None:
    """`restore` refuses the pair in these words, and nothing beside the inputs changes."""
    before = tree(pair[2].parent)
    failed(restore(*pair, *options), *sentences, code=code)
    assert tree(pair[2].parent) == before


def failed(outcome: Outcome, *sentences: str, code: int) -> None:
    """The run ended with one error, in these words, and printed no result."""
    assert outcome.code == code, outcome
    for sentence in sentences:
        assert sentence in outcome, (sentence, outcome.err)
    assert outcome.err.count("error: ") == 1, outcome.err
    assert outcome.out == ""


def tree(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything under `folder`: kind and mode, inode, size and time of the last change."""
    stats = {str(path.relative_to(folder)): path.lstat() for path in sorted(folder.rglob("*"))}
    return {
        name: (s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns)
        if not stat.S_ISDIR(s.st_mode) else (s.st_mode, s.st_ino)
        for name, s in stats.items()
    }  # fmt: skip


def leftovers(out: Path) -> list[str]:
    """What there is under a name that begins with that of `out`."""
    return sorted(path.name for path in out.parent.iterdir() if path.name.startswith(out.name))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, by its path; of an output, without the lines that bear its name."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    if {"README.md", "uvmerge.json"} <= files.keys():
        _drop_name(files)
    return files


def _drop_name(files: dict[str, bytes]) -> None:
    """Take title and commands out of a card, and what hashes the card out of the manifest."""
    lines = files["README.md"].splitlines()
    named = (b"# ", b"uvmerge ", b"lm_eval ")
    files["README.md"] = b"\n".join(line for line in lines if not line.startswith(named))
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        manifest = json.loads(files["uvmerge.json"])
        del manifest["content_xxh3_128"], manifest["files"]["README.md"]
        files["uvmerge.json"] = json.dumps(manifest).encode()


def undisturbed(pair: Pair, *options: object) -> dict[str, bytes]:
    """What a `restore` of this pair writes when nothing goes wrong."""
    base, finetuned, out = pair
    beside = out.with_name("undisturbed")
    done(restore(base, finetuned, beside, *options))
    return contents(beside)


def staging(out: Path) -> Path:
    """The one staging folder beside `out`."""
    (folder,) = out.parent.glob(f"{out.name}.uvmerge-partial-*")
    return folder


def pieces(out: Path) -> list[str]:
    """The finished pieces that the journal of an unfinished run names, one line each."""
    found = list(out.parent.glob(f"{out.name}.uvmerge-partial-*/journal.jsonl"))
    return found[0].read_text().splitlines()[1:] if found else []


@contextlib.contextmanager
def full_disk(after: int) -> Iterator[list[int]]:
    """The disk is full from the call number `after` (counted from 0) that writes something.

    Yields the number of calls so far, in a list.
    """
    count, mutex = [0], threading.Lock()

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with mutex:
                count[0] += 1
                if count[0] > after:
                    raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **keywords)

        return call

    places = [(os, name) for name in ("pwrite", "ftruncate", "fsync", "fdatasync", "mkdir")]
    places += [(Path, "write_bytes"), (Path, "write_text"), (shutil, "copyfile")]
    with contextlib.ExitStack() as stack:
        for place, name in places:
            stack.enter_context(mock.patch.object(place, name, wrap(getattr(place, name))))
        yield count


def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """`target` in a process that has torch loaded and has run nothing yet."""
    context = cast(ForkServerContext, multiprocessing.get_context("forkserver"))
    context.set_forkserver_preload(["torch", "faults", "uvmerge.api.run", "uvmerge.engine.compute"])
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    atexit.register(process.kill)
    return process


def child(log: Path, *arguments: object) -> None:
    """The command line as a whole process, its output in `log`: `start(child, log, …)`."""
    from uvmerge.cli.main import main

    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["uvmerge", *map(str, arguments)]
    main()


def slow_child(log: Path, pause_s: float, *arguments: object) -> None:
    """`child`, with a pause before each edit."""
    from uvmerge.engine.compute import Editor

    real = Editor.produce

    def produce(self: Editor, step: Any) -> Any:
        time.sleep(pause_s)
        return real(self, step)

    Editor.produce = produce  # type: ignore[method-assign]
    child(log, *arguments)


# What a run calls that changes the disk.
CHANGES = ("pwrite", "ftruncate", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir")


def killed_child(log: Path, before: int, counter: Path, *arguments: object) -> None:
    """`child`, killed (SIGKILL) before its call number `before` that changes the disk.

    Writes the number of such calls to `counter` if it lives to its end.
    """
    count, mutex = [0], threading.Lock()

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with mutex:
                if count[0] == before:
                    os.kill(os.getpid(), signal.SIGKILL)
                count[0] += 1
            return real(*arguments, **keywords)

        return call

    for name in CHANGES:
        setattr(os, name, wrap(getattr(os, name)))
    try:
        child(log, *arguments)
    finally:
        with open(counter, "w") as file:
            file.write(str(count[0]))


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Turn a hang into a failure."""

    def stop(*_: object) -> None:
        raise AssertionError(f"still busy after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def wait_for(condition: Callable[[], object], what: str, limit_s: float = 60.0) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited {limit_s} s for {what}"
        time.sleep(0.002)
