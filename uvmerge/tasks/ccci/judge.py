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
from concurrent.futures import Future, ThreadPoolExecutor
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
_RUN = (*_SMALL, "-Xmx64m", "-XX:MaxMetaspaceSize=64m", "--limit-modules", "java.base")

Candidates = Sequence[tuple[Hole, str]]
"""Holes and the code for each."""


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


def judge(candidates: Candidates, tools: tuple[Java, str]) -> list[Judgement]:
    """Compile and test candidates.

    Args:
        tools: what `available` found.

    Raises:
        RunFailed: the project itself does not compile here.
    """
    with bench(*tools) as open_bench:
        return open_bench.judge(candidates)


@contextmanager
def bench(java: Java, kind: str) -> Iterator[Bench]:
    """A bench for any number of candidates, whose folder is there while the block lasts.

    Args:
        kind: of the walls.
    """
    with tempfile.TemporaryDirectory(prefix="uvmerge-ccci-") as name:
        root = Path(os.path.realpath(name))
        root.chmod(0o755)  # a user of a namespace is another one
        with _Compiler(java) as compiler:
            yield Bench(root, java, kind, compiler)


class Bench:
    """The folder in which candidates are compiled and run.

    `tools` holds the test runner, `base` the whole project with its library and tests, `N` the classes
    of the Nth candidate, which come before those of the project.
    """

    def __init__(self, root: Path, java: Java, kind: str, compiler: _Compiler) -> None:
        self.root, self.java, self.kind, self.compiler = root, java, kind, compiler
        self.tools, self.base = root / "tools", root / "base"
        self.count = 0

    def judge(self, candidates: Candidates) -> list[Judgement]:
        """Compile candidates one by one, and test as many at a time as there are processors.

        Raises:
            RunFailed: the project itself does not compile here.
        """
        if not self.base.exists():
            self._compile_project()
        tests: list[Future[str] | str] = []
        pool = ThreadPoolExecutor(os.cpu_count() or 1)
        try:
            for hole, code in candidates:
                own, reason = self._compiled(hole, code)
                tests.append(reason or pool.submit(self._tested, own, hole.tests))
            return [_judgement(test) for test in tests]
        finally:
            pool.shutdown(cancel_futures=True)

    def _compile_project(self) -> None:
        """Compile what all candidates share."""
        files = sorted(p for folder in (LIBRARY, SOURCES, TESTS) for p in folder.rglob("*.java"))
        for target, sources in ((self.tools, [TOOLS / "Run.java"]), (self.base, files)):
            if reason := self.compiler.failure([], target, sources):
                do = "Install uvmerge again, or put another JDK first on the PATH."
                raise RunFailed("ccci", f"the project does not compile: {reason}", do)

    def _compiled(self, hole: Hole, code: str) -> tuple[Path, str]:
        """The folder with a candidate's classes, and why it does not compile if it does not."""
        own, self.count = self.root / str(self.count), self.count + 1
        source = self.root / "sources" / own.name / Path(hole.file).name
        source.parent.mkdir(parents=True)
        text = hole.prefix + code + hole.suffix
        source.write_text(text, encoding="utf-8", errors="replace", newline="\n")
        return own, self.compiler.failure([self.base], own, [source])

    def _tested(self, own: Path, tests: str) -> str:
        """Why the tests of a candidate fail; empty where they pass."""
        word = secrets.token_hex(16).encode()
        path = os.pathsep.join(map(str, (self.tools, own, self.base)))
        words = [
            *sandbox.walls(self.kind, self.java, [self.tools, own, self.base]),
            self.java.program, *_RUN, "-cp", path, "Run", tests, str(len(word)),
        ]  # fmt: skip
        ended = sandbox.run(words, word)
        if ended.stopped:
            return ended.stopped
        return "" if secrets.compare_digest(ended.output, word) else "its tests do not pass"


def _judgement(test: Future[str] | str) -> Judgement:
    """What came of a test, or of the compiler's refusal in its place."""
    if isinstance(test, str):
        return Judgement(False, False, f"does not compile: {test}")
    failure = test.result()
    return Judgement(True, not failure, failure)


class _Compiler:
    """A Java that compiles one job after the other, started when the first one comes.

    One that dies, or needs too long, fails its job; the next job has a new one.
    """

    def __init__(self, java: Java) -> None:
        self.java = java
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> _Compiler:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def failure(self, classpath: Sequence[Path], target: Path, sources: Sequence[Path]) -> str:
        """Why sources do not compile; empty where they do, and their classes are in `target`."""
        target.mkdir()
        path = os.pathsep.join(map(str, classpath))
        answer = self._answer("\t".join([path, str(target), *map(str, sources)]))
        if not answer.endswith("\n"):
            self.__exit__()
            return "the compiler does not come to an end"
        verdict, _, reason = answer.rstrip("\n").partition("\t")
        return "" if verdict == "ok" else brief(reason or "no reason is told", 200)

    def _answer(self, job: str) -> str:
        """The compiler's line, or what there is of it when it has ended."""
        if self.process is None:
            words = [self.java.program, *_SMALL, "-Xmx512m", str(TOOLS / "Compile.java")]
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                encoding="utf-8", errors="replace", start_new_session=True,
            )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        timer = threading.Timer(_COMPILE_S, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(f"{job}\n")
            self.process.stdin.flush()
            return self.process.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            timer.cancel()
