"""The core that needs no torch, installed as a wheel on the lowest and the newest promised Python."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zoo
from command import Outcome, process

from uvmerge.demo import pair
from uvmerge.recipe.bundled import bundled

ROOT = Path(__file__).parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PROMISED = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
NEEDED = ("click", "pyyaml", "tqdm", "xxhash")  # what the core imports beside Python itself
Command = Callable[..., Outcome]


def test_the_lowest_promised_python_is_the_lowest_that_can_install() -> None:
    assert SETUP["options"]["python_requires"] == f">={PROMISED[0]}"
    assert sorted(PROMISED, key=lambda version: int(version[2:])) == PROMISED


def test_every_dependency_has_a_lower_bound() -> None:
    required = SETUP["options"]["install_requires"].split()
    assert all(re.fullmatch(r"\w+>=[\d.]+(,<\d+)?", line) for line in required)
    assert set(NEEDED) < {line.partition(">")[0] for line in required}


def apart() -> dict[str, str]:
    """This environment, without what would let another Python see this tree."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def pip(*words: object) -> None:
    """Run pip on what an index must provide; the test is skipped where there is none."""
    patience = ("--disable-pip-version-check", "--retries", "1", "--timeout", "20")
    done = subprocess.run(
        [sys.executable, "-m", "pip", *patience, *map(str, words)],
        capture_output=True, text=True, env=apart(),
    )  # fmt: skip
    if re.search(r"No matching distribution|Max retries|No module named pip", done.stderr):
        pytest.skip("pip or an index of packages cannot be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "uvmerge", folder / "uvmerge", ignore=shutil.ignore_patterns("__pycache__")
    )
    pip("wheel", "--no-deps", "--wheel-dir", folder, folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module", params=[PROMISED[0], PROMISED[-1]])
def other(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Command]:
    """`uvmerge` in an environment of another Python, which has no torch, numpy or safetensors."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"no Python {request.param} on the path or under ~/.pyenv")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    pip("--python", folder / "bin" / "python", "install", "--only-binary", ":all:", *NEEDED)
    pip("--python", folder / "bin" / "python", "install", "--no-deps", "--no-index", wheel)

    def run(*words: object) -> Outcome:
        done = subprocess.run(
            [folder / "bin" / "uvmerge", *map(str, words)],
            capture_output=True, text=True, env=apart(), cwd=folder,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    yield run
    shutil.rmtree(folder)


def interpreter(version: str) -> Path | None:
    """A Python of this version, one of pyenv's or the one on the path."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [*pyenv.glob(f"versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
    for python in filter(None, found):
        asked = subprocess.run([python, "-c", "import venv"], capture_output=True)
        if asked.returncode == 0:  # a shim of pyenv may stand for a Python that is switched off
            return Path(python)
    return None


def test_the_core_is_the_same_on_another_python(other: Command, tmp_path: Path) -> None:
    base, finetuned = pair()
    for words in ([], ["reset-layers"], ["sweep", "restore"], ["run"], ["diff"], ["check"]):
        shown = other(*words, "--help")
        assert shown.code == 0 and "Usage: " in shown.out, (words, shown.err)
    assert "--top" in other("restore", "--help").out
    for words in (
        ["run", "--list"],
        ["show", finetuned, "--json"],
        ["restore", base, finetuned, tmp_path / "planned", "--dry-run", "--json", "-q"],
    ):
        here, there = process(*words), other(*words)
        assert (there.code, there.err) == (0, ""), words
        assert there.out == here.out, words
    assert other("reset-layers", base, finetuned, tmp_path / "a", "--frac", 0.25).code == 0
    assert other("run", "reset-first-quarter", base, finetuned, tmp_path / "b").code == 0
    assert process("reset-layers", base, finetuned, tmp_path / "c", "--frac", 0.25).code == 0
    assert zoo.raw(tmp_path / "a") == zoo.raw(tmp_path / "b") == zoo.raw(tmp_path / "c")
    names = {line.split()[0] for line in other("run", "--list").out.splitlines()[1:]}
    assert names == set(bundled())


def test_the_core_refuses_alike_on_another_python(other: Command, tmp_path: Path) -> None:
    base, finetuned = pair()
    shutil.copytree(finetuned, tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "model.safetensors", 1_000_000)
    (tmp_path / "bad.yaml").write_text("uvmerge: 1\nsteps:\n  - restore: {top: 1e-1x}\n")
    for words in (
        ["show", tmp_path / "cut"],
        ["reset-layers", base, tmp_path / "cut", tmp_path / "out"],
        ["run", tmp_path / "bad.yaml", base, finetuned, tmp_path / "out"],
        ["restore", base, finetuned, tmp_path / "out", "--top", "2"],
    ):
        here, there = process(*words), other(*words)
        assert there.code == here.code and there.code in (2, 3), words
        assert there.err == here.err.replace("python -m uvmerge", "uvmerge"), words
    done = other("restore", base, finetuned, tmp_path / "out", "-q")
    assert done.code == 1 and "torch is not installed, and this command needs it" in done.err
    assert json.loads(other("show", base, "--json").out)
