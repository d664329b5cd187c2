"""The command line: derived commands, help, output, exit codes."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import zoo
from command import process, uv

import uvmerge
from uvmerge.cli.main import cli
from uvmerge.operations import operations


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return zoo.pair("llama", tmp_path_factory.mktemp("pair"))


def commands() -> dict[str, click.Command]:
    """Every command by its name, those of the group `merge` among them where it is there."""
    merge = cli.commands.get("merge")
    return cli.commands | (merge.commands if isinstance(merge, click.Group) else {})


def test_every_operation_is_a_command() -> None:
    assert operations().keys() <= commands().keys()
    assert {"run", "show", "check", "demo"} <= cli.commands.keys()


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, name, "--help")
    assert shown.code == 0
    assert f"Example: uvmerge {name}" in " ".join(shown.out.split())


@pytest.mark.parametrize("name", sorted(operations()))
def test_the_example_of_an_operation_runs(
    name: str, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epilog = commands()[name].epilog or ""
    words = epilog.removeprefix("Example: uvmerge ").split()
    third = zoo.finetune(pair[0], tmp_path / "third", seed=7) if "c" in words else None
    models = {"base": pair[0], "sft": pair[1], "a": pair[0], "b": pair[1], "c": third}
    places = models | {"out": tmp_path / "out"}
    assert uv(capsys, *(places.get(word, word) for word in words)).code == 0
    assert uv(capsys, "check", tmp_path / "out").code == 0
    if operations()[name].edits:
        assert uv(capsys, "check", tmp_path / "out", "--against", pair[1]).code == 0


def test_help_imports_neither_torch_nor_transformers_and_is_quick() -> None:
    code = (
        "import sys; sys.argv = ['uvmerge', '--help']\n"
        "from uvmerge.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'numpy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4


def test_reset_layers_never_imports_torch(pair: tuple[Path, Path], tmp_path: Path) -> None:
    code = (
        f"import sys, uvmerge; uvmerge.reset_layers({str(pair[0])!r}, {str(pair[1])!r},"
        f" {str(tmp_path / 'out')!r}, frac=0.25)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_options_stand_before_or_after_the_positionals(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert uv(capsys, "restore", "--top", "0.3", *pair, first).code == 0
    assert uv(capsys, "restore", *pair, second, "--top", "30%").code == 0
    assert zoo.raw(first) == zoo.raw(second) != zoo.raw(pair[1])


def test_stdout_is_the_folder_and_stderr_the_rest(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "restore", *pair, tmp_path / "out")
    assert shown.out == f"{tmp_path / 'out'}\n"
    assert "plan: 28 matrices edited, 0 tensors reset to base, 11 tensors copied" in shown.err
    assert "100% after" in shown.err and "28 changed" in shown.err


def test_quiet_says_nothing_on_stderr(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert uv(capsys, "restore", *pair, tmp_path / "out", "-q").err == ""


def test_verbose_names_every_tensor(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "restore", *pair, tmp_path / "out", "-v")
    assert "model.layers.3.self_attn.q_proj.weight" in shown.err.splitlines()


def test_json_is_one_object(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads(uv(capsys, "restore", *pair, tmp_path / "out", "--json").out)
    assert result["edited"] == 28 and result["out"] == str(tmp_path / "out")
    entry = result["edits"]["model.layers.0.mlp.down_proj.weight"]
    assert entry["k"] == [10] and 0 < entry["gap"]["base"]["10"] < 1 and entry["changed"]


def test_dry_run_prints_the_plan_and_writes_nothing(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "restore", *pair, tmp_path / "out", "--dry-run")
    assert shown.code == 0 and list(tmp_path.iterdir()) == []
    row = next(line for line in shown.out.splitlines() if "mlp.down_proj" in line)
    assert row.split() == [
        "model.layers.*.mlp.down_proj.weight",
        "edit",
        "48",
        "×",
        "80",
        "10",
        "4",
    ]
    assert "free)" in shown.out and "of memory" in shown.out
    planned = json.loads(uv(capsys, "restore", *pair, tmp_path / "out", "--dry-run", "--json").out)
    assert planned["counts"] == {"edited": 28, "reset": 0, "copied": 11}
    assert planned["edits"]["model.layers.0.mlp.down_proj.weight"]["k"] == [10]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["restor"], "error: restor: is not a command\n  Did you mean 'restore'?"),
        (["restore", "a"], "error: restore: FINETUNED is missing\n  Usage: uvmerge restore"),
        (["restore", "a", "b", "c", "--top", "2"], "'2.0' is outside 0 to 1"),
        (["restore", "a", "b", "c", "--top", "x"], "'x' is not a number"),
        (["restore", "a", "b", "c", "--rank", "1.5"], "'1.5' is not a number"),
        (["restore", "a", "b", "c", "--layers", "9-1"], "'9-1' is not a range of layers"),
        (["restore", "a", "b", "c", "--modules", "attn"], "'attn' is not a module"),
        (["restore", "a", "b", "c", "--values", "both"], "'both' is not one of"),
        (["reset-layers", "a", "b", "c", "--also", "heads"], "Did you mean 'head'?"),
        (
            ["restore", "a", "b", "c", "--tops", "1"],
            "--tops: is not an option\n  Did you mean '--top'?",
        ),
    ],
)
def test_wrong_words_end_with_2_and_say_what(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, *words)
    assert shown.code == 2
    assert sentence in shown.err


def test_options_that_contradict_end_with_2(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "restore", *pair, tmp_path / "out", "--top", "0.1", "--rank", "3")
    assert shown.code == 2 and "--top and --rank: cannot be given together" in shown.err
    shown = uv(capsys, "swap", *pair, tmp_path / "out")
    assert shown.code == 2 and "Add --left, --right or both." in shown.err
    shown = uv(capsys, "reset-layers", *pair, tmp_path / "out", "--frac", "0.1", "--layers", "2")
    assert shown.code == 2 and "--frac and --layers" in shown.err
    assert list(tmp_path.iterdir()) == []


def test_device_that_is_not_there_is_refused(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "restore", *pair, tmp_path / "out", "--device", "cuda:99")
    assert shown.code == 2 and "cuda:99 is not there" in shown.err
    shown = uv(capsys, "restore", *pair, tmp_path / "out", "--device", "tpu")
    assert shown.code == 2 and "'tpu' is unknown" in shown.err


def test_debug_adds_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = uv(capsys, "show", tmp_path)
    monkeypatch.setenv("UVMERGE_DEBUG", "1")
    loud = uv(capsys, "show", tmp_path)
    assert plain.code == loud.code == 3
    assert "Traceback" not in plain.err and "Traceback" in loud.err


def test_version_and_module_entry_point() -> None:
    assert process("--version").out == f"uvmerge {uvmerge.__version__}\n"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def brokk():\n    pass\n", "defines no function broken"),
        ("import nothing_of_that_name\n", "cannot be read: ModuleNotFoundError"),
        ("def broken(\n", "cannot be read: SyntaxError"),
        (
            "from uvmerge.spectral import Matrix\n"
            "def broken(base: Matrix, finetuned: Matrix, *, scale: float = 1.0):\n    return base\n",
            "option scale lacks its help",
        ),
    ],
)
def test_an_operation_that_cannot_be_read_is_one_error_with_its_file(
    code: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(code)
    program = (
        "import sys, uvmerge.operations as o\n"
        f"o.__path__.append({str(tmp_path)!r})\n"
        "sys.argv = ['uvmerge', 'show', 'x']\n"
        "from uvmerge.cli.main import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: operations/broken.py: ") and sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_an_operation_that_fails_names_the_tensor(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from unittest import mock

    from uvmerge.spectral.matrix import DenseMatrix

    with mock.patch.object(DenseMatrix, "plus", side_effect=AttributeError("no such thing")):
        shown = uv(capsys, "restore", *pair, tmp_path / "out", "--workers", "1")
    assert shown.code == 1
    assert ".weight: restore failed: AttributeError: no such thing" in shown.err


@pytest.mark.parametrize("delay", [0.1, 0.3, 0.5, 0.8])
def test_ctrl_c_stops_also_during_imports(
    delay: float, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ["uvmerge", "restore", *map(str, pair), str(tmp_path / "out")]
    program = (
        f"import sys; sys.argv = {words!r}; from uvmerge.cli.main import main\n"
        "print('ready', file=sys.stderr, flush=True); main()"
    )
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None and running.stderr.readline() == "ready\n"
    time.sleep(delay)
    running.send_signal(signal.SIGINT)
    said = running.communicate()[1]
    assert running.returncode in (130, 0) and "Traceback" not in said
    assert (running.returncode == 0) == (tmp_path / "out").exists()
