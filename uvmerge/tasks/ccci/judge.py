"""Build Pass: whether the project with a candidate in it compiles, and the tests of the hole pass.

One Java compiles all candidates, each into a folder of its own and without annotation processors. Then
every candidate has a Java of its own for its tests, behind the walls of `sandbox`. A pass is a random
word that the test runner read before it loaded the candidate and writes after the last test: neither an
exit code nor anything that a candidate can print is one.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import RunFailed
from ...text import brief
from . import sandbox
from .benchmark import LIBRARY, SOURCES, TESTS
from .sandbox import Java
from .task import Hole

RELEASE = 17  # of Java, the oldest that can judge
TOOLS = Path(__file__).resolve().parent / "java"
_INSTALL = "install a JDK of 17 or newer, such as: apt-get install openjdk-17-jdk-headless"
_COMPILE_S = 60.0  # for one answer of the compiler
_SMALL = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_RUN = (*_SMALL, "-Xmx64m", "-XX:MaxMetaspaceSize=64m", f"-Djava.io.tmpdir={sandbox.SCRATCH}",
        "--limit-modules", "java.base")  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """What came of one candidate.

    Attributes:
        compiles: whether the file with the candidate in it compiles.
        passes: whether its tests passed as well.
        reason: why not; empty for a pass.
    """

    compiles: bool
    passes: bool
    reason: str = ""


def java() -> Java | str:
    """The JDK of the `javac` on the PATH, or why there is none, and what to do."""
    found = shutil.which("javac")
    if found is None:
        return f"no javac is on the PATH; {_INSTALL}"
    home = Path(os.path.realpath(found)).parent.parent
    release = home / "release"
    told = re.search(r'JAVA_VERSION="(\d+)', release.read_text() if release.is_file() else "")
    if told is None or not (home / "bin" / "java").is_file():
        return f"javac at {found} belongs to no JDK; {_INSTALL}"
    if int(told[1]) < RELEASE:
        return f"javac at {found} is of Java {told[1]}; {_INSTALL}"
    return Java(home)


def available(no_sandbox: bool = False) -> tuple[Java, str] | str:
    """The JDK and the kind of walls that candidates are run with, or why they cannot be run.

    Args:
        no_sandbox: run candidates without walls where no walls can be had.
    """
    found = java()
    if isinstance(found, str):
        return found
    kind = sandbox.best_walls(found)
    if kind == sandbox.NONE and not no_sandbox:
        return (
            "no sandbox works here; install bubblewrap (apt-get install bubblewrap) and allow user "
            "namespaces, or pass --no-sandbox to run answers of a model with your own rights"
        )
    return found, kind


def judge(
    candidates: Sequence[tuple[Hole, str]], tools: tuple[Java, str], at_once: int = 0
) -> list[Judgement]:
    """Compile and test candidates.

    Args:
        candidates: a hole and the code for it, each.
        tools: what `available` found.
        at_once: how many are tested at the same time; 0 for one per processor.

    Raises:
        RunFailed: the project itself does not compile here.
    """
    with tempfile.TemporaryDirectory(prefix="uvmerge-ccci-") as name:
        root = Path(os.path.realpath(name))
        root.chmod(0o755)
        bench = _Bench(root, *tools)
        reasons = bench.compiled(candidates)
        with ThreadPoolExecutor(at_once or os.cpu_count() or 1) as pool:
            numbers = [n for n, reason in enumerate(reasons) if not reason]
            failures = pool.map(lambda n: bench.tested(n, candidates[n][0].tests), numbers)
            outcomes = dict(zip(numbers, failures))
    return [
        Judgement(False, False, reason) if reason
        else Judgement(True, not outcomes[number], outcomes[number])
        for number, reason in enumerate(reasons)
    ]  # fmt: skip


class _Bench:
    """The folder in which candidates are compiled and run.

    `tools` holds the test runner, `base` the whole project with its library and tests, `N` the classes
    of candidate N, which come before those of the project.
    """

    def __init__(self, root: Path, java: Java, kind: str) -> None:
        self.root, self.java, self.kind = root, java, kind
        self.tools, self.base = root / "tools", root / "base"

    def compiled(self, candidates: Sequence[tuple[Hole, str]]) -> list[str]:
        """Compile everything; why each candidate does not compile, and nothing where it does."""
        files = sorted(p for folder in (LIBRARY, SOURCES, TESTS) for p in folder.rglob("*.java"))
        jobs = [_job([], self.tools, [TOOLS / "Run.java"]), _job([], self.base, files)]
        for number, (hole, code) in enumerate(candidates):
            source = self.root / "sources" / str(number) / Path(hole.file).name
            source.parent.mkdir(parents=True)
            text = hole.prefix + code + hole.suffix
            source.write_text(text, encoding="utf-8", errors="replace", newline="\n")
            jobs.append(_job([self.base], self.root / str(number), [source]))
        tools, base, *reasons = _compiled(self.java, jobs)
        if tools or base:
            do = "Install uvmerge again, or put another JDK first on the PATH."
            raise RunFailed("ccci", f"the project does not compile: {tools or base}", do)
        return [reason and f"does not compile: {reason}" for reason in reasons]

    def tested(self, number: int, tests: str) -> str:
        """Why the tests of a candidate fail; empty where they pass."""
        own, word = self.root / str(number), secrets.token_hex(16).encode()
        path = os.pathsep.join(map(str, (self.tools, own, self.base)))
        words = [
            *sandbox.walls(self.kind, self.java, [self.tools, own, self.base]),
            self.java.program, *_RUN, "-cp", path, "Run", tests, str(len(word)),
        ]  # fmt: skip
        ended = sandbox.run(words, word)
        if ended.stopped:
            return ended.stopped
        return "" if secrets.compare_digest(ended.output, word) else "its tests do not pass"


def _job(classpath: Sequence[Path], target: Path, sources: Sequence[Path]) -> str:
    """A line of the compiler's input; the folder for the classes is made."""
    target.mkdir()
    return "\t".join([os.pathsep.join(map(str, classpath)), str(target), *map(str, sources)])


def _compiled(java: Java, jobs: Sequence[str]) -> Iterator[str]:
    """Why each job fails; empty where it is done. A compiler that dies is started again."""
    done = 0
    while done < len(jobs):
        with _compiler(java) as compiler:
            for reason in _answered(compiler, jobs[done:]):
                yield reason
                done += 1
        if done < len(jobs):
            yield "the compiler does not come to an end"
            done += 1


@contextmanager
def _compiler(java: Java) -> Iterator[subprocess.Popen[str]]:
    """A compiler that waits for jobs."""
    words = [
        java.program,
        *_SMALL,
        "-Xmx512m",
        "-Dstdout.encoding=UTF-8",
        str(TOOLS / "Compile.java"),
    ]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        encoding="utf-8", errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def _answered(compiler: subprocess.Popen[str], jobs: Sequence[str]) -> Iterator[str]:
    """The answers of a compiler, until it ends or needs too long for one."""
    assert compiler.stdin is not None and compiler.stdout is not None
    for job in jobs:
        timer = threading.Timer(_COMPILE_S, compiler.kill)
        timer.start()
        try:
            compiler.stdin.write(f"{job}\n")
            compiler.stdin.flush()
            answer = compiler.stdout.readline()
        except BrokenPipeError:
            return
        finally:
            timer.cancel()
        if not answer.endswith("\n"):
            return
        verdict, _, reason = answer.rstrip("\n").partition("\t")
        yield "" if verdict == "ok" else brief(reason or "no reason is told", 200)
