"""The judge of Java code: what passes, and that nothing that a candidate does gets it a pass."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from java import TOOLS, hole, needs_jdk, needs_sandbox, running, tools

import uvmerge
from uvmerge.tasks.ccci import judge, sandbox, scoring
from uvmerge.tasks.ccci.benchmark import tasks

HOLE = hole("carrier-view")
GOLD = HOLE.gold
CHILD = "PauseAtStartupFile=uvmerge-planted"  # on the command line of a child that waits for ever
SPAWN = f"""new ProcessBuilder(
    System.getProperty("java.home") + "/bin/java", "-XX:+UnlockDiagnosticVMOptions",
    "-XX:+PauseAtStartup", "-XX:{CHILD}", "-version").start();"""
OUT = "new java.io.FileOutputStream(java.io.FileDescriptor.out)"


def trying(code: str) -> str:
    """A candidate that does something forbidden, and is right only if that succeeds."""
    return (
        f"try {{ {code} }} catch (Exception | Error e) {{ throw new RuntimeException(e); }}\n{GOLD}"
    )


def planted(port: int) -> dict[str, str]:
    """Candidates that all have to fail; those that could be right are so only if a wall has a gap."""
    return {
        "loop": f"while (carrier != null) {{}}\n{GOLD}",
        "exit": f"{GOLD}\nSystem.exit(0);",
        "word": trying(f'{OUT}.write("passed".getBytes()); Runtime.getRuntime().halt(0);'),
        "file": trying('java.nio.file.Files.readString(java.nio.file.Path.of("/etc/passwd"));'),
        "socket": trying(f'new java.net.Socket("127.0.0.1", {port}).getOutputStream().write(1);'),
        "program": trying('new ProcessBuilder("/usr/bin/id").start().waitFor();'),
        "memory": "java.util.List<byte[]> all = new java.util.ArrayList<>();\n"
        "while (true) { all.add(new byte[1 << 20]); if (all.isEmpty()) break; }",
        "threads": "while (view != null) { try { new Thread(() -> { try { Thread.sleep(600000); }"
        " catch (InterruptedException e) { } }).start(); } catch (Throwable e) { } }",
        "disk": trying(
            'try (var out = new java.io.FileOutputStream(java.io.File.createTempFile("a", "b")))'
            " { for (int i = 0; i < 1024; i++) out.write(new byte[1 << 20]); }"
        ),
        "child": trying(f"{SPAWN} System.exit(0);"),
        "arguments": trying(
            "String told = String.join(\" \", ProcessHandle.current().info().arguments()"
            f'.orElse(new String[0])) + System.getenv() + System.getProperties(); {OUT}.write('
            'told.replaceAll("\\\\s", "\\n").getBytes()); Runtime.getRuntime().halt(0);'
        ),
        "own arguments": trying(
            f'{OUT}.write(java.nio.file.Files.readAllBytes(java.nio.file.Path.of("/proc/self/cmdline")));'
            " Runtime.getRuntime().halt(0);"
        ),
    }  # fmt: skip


@contextmanager
def listener() -> Iterator[tuple[int, list[object]]]:
    """A port of this machine, and the connections that came."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                came.append(address)
                connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture(scope="module")
def shared() -> Iterator[judge.Bench]:
    """A bench whose project is compiled once; each test says which walls it wants."""
    with judge.bench(*tools(sandbox.NONE)) as bench:
        yield bench


def judged(bench: judge.Bench, kind: str, codes: Iterable[str]) -> list[judge.Judgement]:
    """What the judge says of codes in one hole."""
    bench.kind = kind
    return bench.judge([(HOLE, code) for code in codes])


def limits_of_tests() -> None:
    """Half of the seconds of CPU, which are many times what the right code needs."""
    sandbox._LIMITS = sandbox._LIMITS.replace(f"-t {sandbox.CPU_S}", f"-t {sandbox.CPU_S // 2}")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_LIMITS", sandbox._LIMITS)
    limits_of_tests()


@needs_sandbox
def test_planted_candidates_fail_leave_nothing_and_do_no_harm_to_the_next(
    shared: judge.Bench,
) -> None:
    assert not isinstance(TOOLS, str)
    started = time.monotonic()
    with listener() as (port, came):
        codes = planted(port)
        found = dict(zip(codes, judged(shared, TOOLS[1], codes.values())))
        after = judged(shared, TOOLS[1], [GOLD])
        assert not running(str(shared.base)) and not running(CHILD)
    reasons = {name: each.reason for name, each in found.items()}
    assert all(each.compiles for each in found.values()), reasons
    gaps = {name for name, each in found.items() if each.passes}
    # `unshare` hides the network and other processes; files and programs of the machine stay in reach.
    assert gaps <= ({"file", "program"} if TOOLS[1] == sandbox.UNSHARE else set()), reasons
    assert not came and after[0].passes
    assert "threads" in reasons["threads"] and time.monotonic() - started < 60


@needs_sandbox
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become nobody")
def test_planted_candidates_fail_where_nobody_judges(tmp_path: Path) -> None:
    """The process becomes nobody when all is imported: that one may not read this Python."""
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    code = (
        "import json, os\n"
        "from test_ccci_judge import *\n"
        "os.setgroups([]), os.setresgid(*[65534] * 3), os.setresuid(*[65534] * 3)\n"
        "if not os.access(judge.TOOLS / 'Run.java', os.R_OK): raise SystemExit('unreadable')\n"
        "limits_of_tests()\n"
        "found = judge.available()\n"
        "assert not isinstance(found, str), found\n"
        "with listener() as (port, came):\n"
        "    codes = [*planted(port).values(), GOLD]\n"
        "    all = judge.judge([(HOLE, code) for code in codes], found)\n"
        "print(json.dumps([os.getuid(), found[1], len(came), [each.passes for each in all]]))\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(uvmerge.__file__).parents[1])])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd="/"
    )
    if done.stderr.strip() == "unreadable":
        pytest.skip("nobody may not read the files of uvmerge")
    assert done.returncode == 0, done.stderr
    who, kind, came, passes = json.loads(done.stdout)
    assert who == 65534 and came == 0 and passes[-1]
    if kind == sandbox.BWRAP:
        assert not any(passes[:-1])


@needs_jdk
def test_without_a_sandbox_nothing_that_a_candidate_started_stays(shared: judge.Bench) -> None:
    codes = [f"try {{ {SPAWN} }} catch (Exception e) {{}}\nSystem.exit(0);", GOLD]
    found = judged(shared, sandbox.NONE, codes)
    assert [each.passes for each in found] == [False, True]
    assert not running(CHILD)


@needs_jdk
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_unshare_takes_the_network_away(shared: judge.Bench) -> None:
    java = tools(sandbox.UNSHARE)[0]
    words = [*sandbox.walls(sandbox.UNSHARE, java, []), java.program, "-version"]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    with listener() as (port, came):
        found = judged(shared, sandbox.UNSHARE, [planted(port)["socket"], GOLD])
    assert [each.passes for each in found] == [False, True] and not came


@needs_jdk
def test_a_compiler_that_dies_fails_its_job_alone(shared: judge.Bench) -> None:
    assert judged(shared, sandbox.NONE, [GOLD])[0].passes
    process = shared.compiler.process
    assert process is not None
    process.kill()
    process.wait()
    deep = f"int x = {'(' * 20000}1{')' * 20000};"
    died, nested, right = judged(shared, sandbox.NONE, [GOLD, deep, GOLD])
    assert "the compiler" in died.reason and not died.compiles
    assert "does not compile" in nested.reason and right.passes


@needs_jdk
def test_a_run_that_is_stopped_tests_nothing_more(
    shared: judge.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidates that wait are dropped: a stop does not take as long as the rest of the run."""
    tested = []
    monkeypatch.setattr(judge.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(
        judge.Bench, "_tested", lambda self, own, tests: tested.append(own) or time.sleep(0.2)
    )
    compiled: list[str] = []

    def stopped(hole: object, code: str) -> tuple[Path, str]:
        if len(compiled) == 3:
            raise KeyboardInterrupt
        compiled.append(code)
        return Path("classes"), ""

    monkeypatch.setattr(shared, "_compiled", stopped)
    with pytest.raises(KeyboardInterrupt):
        judged(shared, sandbox.NONE, [GOLD] * 9)
    assert len(tested) <= 1


@needs_jdk
def test_code_that_does_not_compile_is_told_with_its_line(shared: judge.Bench) -> None:
    found = judged(shared, sandbox.NONE, ["view.setNothing(1);", "view.setId(", ""])
    assert [each.compiles for each in found] == [False, False, True]
    assert f"does not compile: line {HOLE.place.line}: cannot find symbol" in found[0].reason
    assert found[2].reason == "its tests do not pass"


def test_code_that_leaves_its_hole_fails_without_the_judge() -> None:
    codes = [GOLD, "return view;\n}\nvoid more() {\nint x = 1;"]
    asked = []
    found = scoring.judged_inside(
        [(HOLE, code) for code in codes],
        lambda inside: asked.append(inside) or [judge.Judgement(True, True)],
    )
    assert asked == [[(HOLE, GOLD)]]
    assert [each.passes for each in found] == [True, False]
    assert "hole" in found[1].reason


@pytest.mark.parametrize(
    ("release", "sentence"),
    [(None, "belongs to no JDK"), ('JAVA_VERSION="11.0.2"', "is of Java 11"), ("", "belongs to no JDK")],
)  # fmt: skip
def test_a_jdk_that_cannot_judge_is_said(
    release: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("java", "javac"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    if release is not None:
        (tmp_path / "release").write_text(f"{release}\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = judge.available()
    assert isinstance(found, str) and sentence in found and "apt-get install" in found


def test_the_lines_of_every_hole_are_statements_and_its_tests_are_there() -> None:
    assert len(tasks()) == len({task.hole.id for task in tasks()}) >= 40
    assert {task.hole.domain for task in tasks()} == {"warehouse", "clinic"}
    for task in tasks():
        assert (
            task.hole.gold.endswith((";", "}"))
            and scoring.cut(task.hole.gold, task.hole.prefix, task.hole.suffix) == task.hole.gold
        )
        name = task.hole.tests.rpartition(".")[2]
        text = (judge.TESTS / "checks" / f"{name}.java").read_text()
        assert text.count("Check.same(") >= 4, name
