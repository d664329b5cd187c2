"""Kill commands before every call that changes the disk; the same command must finish each of them.

    python benchmarks/kills.py FOLDER [--sample N] [--seed S] [--results]

Every command below is first run undisturbed in FOLDER. Then it is killed (SIGKILL) before its first
call that creates, writes, renames, links, syncs or removes a file or folder, in a fresh place before
its second, and so on. After each kill, what has its final name must be whole, old or new. The same
command is then killed a second time, at a point drawn from the seed, and run to its end: it must
exit with 0, leave the bytes of the undisturbed run, and nothing else.

FOLDER/done.jsonl holds the outcome of every kill, so that a run that was stopped goes on. --sample
draws N of the first kills instead of all, without a second one. --results writes
benchmarks/results/kills.json.
"""

from __future__ import annotations

import argparse
import builtins
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # children are forked
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from measure import about, table, write_result
from safetensors.torch import save_file

import uvmerge.api.sweep
import uvmerge.cli.main
import uvmerge.demo.run
import uvmerge.engine.compute
import uvmerge.engine.measuring
import uvmerge.report.page
from uvmerge.demo import sums
from uvmerge.output import publishing

CALLS = (
    "write", "pwrite", "ftruncate", "fsync", "fchmod", "rename", "replace", "link", "symlink",
    "unlink", "remove", "mkdir", "rmdir",
)  # fmt: skip
UNFINISHED = re.compile(r"(.*/)?[^/]*(\.uvmerge-(partial-.*|lock.*)|\.new|\.safetensors\..*)")
Tree = Mapping[str, bytes | None]  # the content of each file by its path; None of a folder


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        words: as typed; `base` and `finetuned` lie beside the folder that it runs in.
        before: what is run or done in this folder first.
        outs: folders that are whole or not there (or, with `before`, the old ones).
    """

    words: str
    outs: tuple[str, ...] = ("out",)
    before: Callable[[], object] | None = None


def old_output() -> None:
    run("restore ../base ../finetuned out --top 0.25 --alpha 0.5 --quiet")


def old_output_with_notes() -> None:
    old_output()
    Path("out/notes.txt").write_text("mine")


RESTORE = "restore ../base ../finetuned out --top 0.25 --workers 1 --quiet"
SWEPT = ("out/top-0.25", "out/top-0.5")
COMMANDS = {
    "restore": Command(RESTORE),
    "sweep": Command(f"sweep {RESTORE}".replace("0.25", "0.25,0.5"), SWEPT),
    "--factors": Command(f"{RESTORE} --factors factors"),
    "--overwrite": Command(f"{RESTORE} --overwrite", before=old_output),
    "--overwrite of a folder with other files": Command(
        f"{RESTORE} --overwrite", before=old_output_with_notes
    ),
    "diff --out": Command("diff ../base ../finetuned --out report --quiet", ()),
    "--report": Command(f"{RESTORE} --report report"),
    "demo": Command("demo demo --hands 100", ("demo/restore-0.2", "demo/interpolate-0.3")),
}


class Calls:
    """Counts the calls that change the disk, and ends this process before one of them."""

    def __init__(self, last: int | None, log: Path) -> None:
        self.last, self.names = last, list[str]()
        self.mutex = threading.Lock()
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.note = os.write  # not the one that is counted

    def about_to(self, name: str) -> None:
        with self.mutex:
            self.note(self.log, f"{name}\n".encode())
            self.names.append(name)
            if len(self.names) - 1 == self.last:
                os.kill(os.getpid(), signal.SIGKILL)

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            self.about_to(name)
            return call(*arguments, **keywords)

        return wrapped

    def watch(self) -> None:
        """Count from now on, in this process."""
        for name in CALLS:
            setattr(os, name, self.counted(name, getattr(os, name)))
        publishing.exchanged = self.counted("renameat2", publishing.exchanged)
        opened, calls = os.open, self

        def os_open(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
            if flags & os.O_CREAT:
                calls.about_to("creat")
            return opened(path, flags, *arguments, **keywords)

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                calls.about_to("write")
                return super().write(data)

        plain = io.open

        def file(
            name: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
            errors: str | None = None, newline: str | None = None, **keywords: Any,
        ) -> Any:  # fmt: skip
            if not set(mode) & set("wax+"):
                return plain(name, mode, buffering, encoding, errors, newline, **keywords)
            if not isinstance(name, int):
                calls.about_to("creat")
            raw = Raw(name, re.sub("[bt]", "", mode), **keywords)
            buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return (
                buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)
            )

        os.open = os_open  # type: ignore[assignment]
        builtins.open = io.open = file  # type: ignore[assignment]


def run(words: str) -> int:
    """The command line in this process; its exit code."""
    sys.argv = ["uvmerge", *words.split()]
    try:
        uvmerge.cli.main.main()
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1
    return 0


def small_demo(inputs: Path) -> None:
    """In this process: a demo on the small pair, of two checkpoints, that asks them nothing."""
    demo = uvmerge.demo.run
    made = [job for job in demo._jobs() if job.name in demo._SHOWN]
    demo._jobs = lambda: made
    demo.embedded = lambda pair: (inputs / "base", inputs / "finetuned")
    told = demo.evaluator.Answers(("A", "2"), dict.fromkeys(sums.RULES, np.array([True, False])))
    demo.evaluator.answers = lambda folder, hands, seed: told


def forked(task: Callable[[], int], folder: Path, said: Path) -> int:
    """Run `task` in a child with `folder` as its working directory; its exit status or -signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 99
    try:
        os.chdir(folder)
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        uvmerge.api.diff.Comparison.seconds = lambda self: {}  # the one thing that differs
        small_demo(folder.parent)
        code = task()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def tree(folder: Path) -> Tree:
    """Everything below a folder, by its path."""
    found = sorted(folder.rglob("*"))
    return {
        path.relative_to(folder).as_posix(): content(path) if path.is_file() else None
        for path in found
    }


def content(path: Path) -> bytes:
    """What a file holds; of kept factors with the header sorted, whose order safetensors draws."""
    found = path.read_bytes()
    if path.parent.name != "factors" or path.suffix != ".safetensors":
        return found
    start = 8 + int.from_bytes(found[:8], "little")
    return json.dumps(json.loads(found[8:start]), sort_keys=True).encode() + found[start:]


def below(tree: Tree, name: str) -> Tree:
    """What a tree holds below one folder."""
    return {path: content for path, content in tree.items() if path.startswith(f"{name}/")}


class Bench:
    """Kills commands in a folder.

    Attributes:
        home: holds the inputs, the outcomes, and the folder in which commands run.
    """

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.seed = home.resolve(), seed
        self.place, self.said = self.home / "place", self.home / "said"
        self.log, self.done = self.home / "calls", self.home / "done.jsonl"
        self.home.mkdir(parents=True, exist_ok=True)
        if not (self.home / "finetuned" / "config.json").exists():
            forked(partial(make_pair, self.home), self.home, self.said)

    def start(self, command: Command) -> None:
        """An empty folder, or one with what was there before."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        if command.before is not None:
            before = command.before
            code = forked(lambda: before() or 0, self.place, self.said)  # type: ignore[func-returns-value, return-value]
            assert code == 0, self.said.read_text()

    def run(self, command: Command, last: int | None = None) -> tuple[int, list[str]]:
        """Run a command, killed before its call number `last`; exit code, and the calls it made."""

        def task() -> int:
            Calls(last, self.log).watch()
            return run(command.words)

        code = forked(task, self.place, self.said)
        return code, self.log.read_text().split()

    def undisturbed(self, name: str) -> tuple[Tree, Tree, int]:
        """What a command finds and leaves, and how many calls that change the disk it makes."""
        command = COMMANDS[name]
        self.start(command)
        old = tree(self.place)
        code, calls = self.run(command)
        assert code == 0, self.said.read_text()
        return old, tree(self.place), len(calls)

    def kill(
        self, name: str, point: int, old: Tree, new: Tree, twice: bool
    ) -> Iterator[dict[str, Any]]:
        """The outcome of killing a command before its call number `point`, and perhaps once more."""
        command = COMMANDS[name]
        self.start(command)
        dice = random.Random(f"{self.seed} {name} {point}")
        points = [point, dice.randrange(dice.choice((8, 24, point + 8)))] if twice else [point]
        found: list[dict[str, Any]] = []
        for again, last in enumerate(points):
            code, calls = self.run(command, last)
            if code not in (-signal.SIGKILL, 0):
                wrong = f"exit code {code}: {self.said.read_text()[-500:]}"
            else:
                wrong = not_whole(command, tree(self.place), old, new)
            killed = code == -signal.SIGKILL
            found.append(
                {"command": name, "point": point, "again": again, "killed": killed,
                 "before": calls[-1] if killed else "", "wrong": wrong}
            )  # fmt: skip
        code, _ = self.run(command)
        if code != 0:
            found[-1]["wrong"] += f" then exit code {code}: {self.said.read_text()[-500:]}"
        elif (now := tree(self.place)) != new:
            differ = {
                path for path in now.keys() | new.keys() if now.get(path, 0) != new.get(path, 0)
            }
            found[-1]["wrong"] += f" then other files: {sorted(differ)[:5]}"
        yield from found


def not_whole(command: Command, now: Tree, old: Tree, new: Tree) -> str:
    """What has its final name after a kill and is neither old nor new; empty where nothing is."""
    for out in command.outs:
        found = below(now, out)
        if found and found not in (below(old, out), below(new, out)):
            return f"{out} is there and not whole"
        if below(old, out) and not found:
            return f"{out} has gone"
    for path, content in now.items():
        if content is not None and not any(
            map(UNFINISHED.fullmatch, (path, *map(str, Path(path).parents)))
        ):
            in_out = any(path.startswith(f"{out}/") for out in command.outs)
            if not in_out and content not in (old.get(path), new.get(path)):
                return f"{path} is there and not whole"
    return ""


def make_pair(home: Path) -> int:
    """Write two small checkpoints: three matrices in each of two layers, two shards, side files."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"model.embed_tokens.weight": (32, 16)}
    for layer, (part, shape) in itertools.product(
        range(2), {"self_attn.q_proj": (16, 16), "mlp.up_proj": (24, 16)}.items()
    ):
        shapes[f"model.layers.{layer}.{part}.weight"] = shape
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tuned = {n: t + 0.02 * torch.randn(t.shape, generator=generator) for n, t in base.items()}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2}
    for folder, tensors in ((home / "base", base), (home / "finetuned", tuned)):
        folder.mkdir()
        names, weight_map = list(tensors), {}
        for number, part in enumerate((names[:2], names[2:]), 1):
            file = f"model-{number:05d}-of-00002.safetensors"
            save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        total = sum(4 * tensor.numel() for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "config.json").write_text(json.dumps(config))
    return 0


def outcomes(bench: Bench, sample: int | None) -> list[dict[str, Any]]:
    """The outcome of every kill, those of earlier runs included."""
    known: list[dict[str, Any]] = []
    if bench.done.exists() and sample is None:
        whole = [
            line for line in bench.done.read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]
        bench.done.write_text("".join(whole))
        known = [json.loads(line) for line in whole]
    finished = {(each["command"], each["point"]) for each in known}
    measured = {name: bench.undisturbed(name) for name in COMMANDS}
    points = [(name, point) for name, (_, _, n) in measured.items() for point in range(n)]
    if sample is not None:
        points = sorted(random.Random(bench.seed).sample(points, sample))
    for name, point in points:
        if (name, point) in finished:
            continue
        old, new, _ = measured[name]
        found = list(bench.kill(name, point, old, new, twice=sample is None))
        known += found
        with bench.done.open("a") as file:
            file.write("".join(json.dumps(each) + "\n" for each in found))
    return known


def summary(found: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Counts of kills by command and by call, and everything that went wrong."""
    commands: dict[str, Any] = {}
    for name in COMMANDS:
        own = [each for each in found if each["command"] == name]
        killed = [each for each in own if each["killed"]]
        commands[name] = {
            "command": f"uvmerge {COMMANDS[name].words}",
            "points": len({each["point"] for each in own}),
            "kills": len(killed),
            "second_kills": sum(each["again"] for each in killed),
            "kills_before": dict(sorted(Counter(each["before"] for each in killed).items())),
            "wrong": sum(bool(each["wrong"]) for each in own),
        }
    wrong = [each for each in found if each["wrong"]]
    total = sum(each["killed"] for each in found)
    return {"seed": seed, "kills": total, "wrong": wrong, "commands": commands}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=20, metavar="S")
    parser.add_argument("--results", action="store_true")
    asked = parser.parse_args()
    bench = Bench(asked.folder, asked.seed)
    result = summary(outcomes(bench, asked.sample), asked.seed)
    rows = [[name, each["kills"], each["wrong"]] for name, each in result["commands"].items()]
    print(table([["", "kills", "wrong"], *rows, ["all", result["kills"], len(result["wrong"])]]))
    for each in result["wrong"]:
        print(f"{each['command']}, before call {each['point']}: {each['wrong']}", file=sys.stderr)
    if asked.results:
        print(write_result("kills", about("uvmerge", "torch") | result))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
