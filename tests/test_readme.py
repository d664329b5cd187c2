"""What the README says works: a new operation is one file, and the commands it shows exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import zoo
from command import uv

import uvmerge
from uvmerge import operations
from uvmerge.cli import main as cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_operation_of_the_readme_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = README[README.index("## Adding an operation") :]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code
    (tmp_path / "shrink.py").write_text(code[1])
    monkeypatch.setattr(operations, "__path__", [*operations.__path__, str(tmp_path)])
    operations.operations.cache_clear()
    try:
        found = operations.get("shrink")
        monkeypatch.setitem(cli.cli.commands, "shrink", cli.command_for(found))
        shown = " ".join(uv(capsys, "shrink", "--help").out.split())
        assert "Formula: " in shown and "--scale" in shown
        base, finetuned = zoo.pair("llama", tmp_path / "pair")
        out = tmp_path / "out"
        assert uv(capsys, "shrink", base, finetuned, out, "--scale", "0.5").code == 0
        assert zoo.raw(out) != zoo.raw(finetuned)
        (tmp_path / "r.yaml").write_text("uvmerge: 1\nsteps:\n  - shrink: {scale: 0.5}\n")
        words = ["--base", base, "--finetuned", finetuned]
        assert uv(capsys, "run", tmp_path / "r.yaml", tmp_path / "two", *words).code == 0
        assert zoo.raw(out) == zoo.raw(tmp_path / "two")
        assert (
            uvmerge.shrink(base, finetuned, tmp_path / "three", scale=1).plan.counts()["edited"]
            == 0
        )
    finally:
        operations.operations.cache_clear()


def test_every_command_in_the_readme_parses() -> None:
    lines = re.findall(r"^\$ uvmerge (.*?)(?:  +#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        name, *words = shlex.split(line)
        cli.cli.commands[name].make_context(name, words, resilient_parsing=False)


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
