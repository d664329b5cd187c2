"""What travels in the wheel: it is built, installed beside nothing else of uvmerge, and used."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import uvmerge

ROOT = Path(uvmerge.__file__).parents[1]
USE = """
import sys
from pathlib import Path
import uvmerge
assert Path(uvmerge.__file__).is_relative_to(sys.argv[1]), uvmerge.__file__
from uvmerge.tasks import hands
from uvmerge.tasks.ccci import benchmark, judge, open_index
assert len(hands.frozen("id")) == 2000
assert len(benchmark.tasks()) >= 40 and all(path.is_file() for path in benchmark.SCHEMA)
for task in benchmark.tasks():
    pack, prompt = benchmark.asked(task.hole)
    assert pack.pieces and (benchmark.TESTS / (task.hole.tests.replace(".", "/") + ".java")).is_file()
assert sorted(path.name for path in judge.TOOLS.iterdir()) == ["Compile.java", "Run.java"]
tools = judge.available(no_sandbox=True)
if isinstance(tools, str):
    print("no judge:", tools)
else:
    print(judge.judge([(benchmark.tasks()[0].hole, benchmark.tasks()[0].hole.gold)], tools)[0].passes)
"""


def _has_setuptools() -> bool:
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not _has_setuptools(), reason="needs setuptools 77, which builds the wheel")
@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip")
def test_hands_project_and_tests_travel_in_the_wheel(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "uvmerge", source / "uvmerge",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), "."]
    subprocess.run(build, check=True, cwd=source)
    wheel = next(tmp_path.glob("*.whl"))
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    shutil.rmtree(source)
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{USE}"
    used = subprocess.run(
        [sys.executable, "-I", "-c", code, str(site)], capture_output=True, text=True, cwd=tmp_path
    )
    assert used.returncode == 0, used.stderr
    assert used.stdout.strip() == "True" or used.stdout.startswith("no judge: ")
