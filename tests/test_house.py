"""The house keeps its shape: arrows of imports, sizes, what is imported when, the README's file tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import uvmerge

PACKAGE = Path(uvmerge.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)

# Rooms in the order of the flow: each may import those of its own line and below.
FLOORS = [
    ["cli", "__main__", "demo"],
    ["signals"],
    ["sweeps"],
    ["comparison", "api", "checks", "contents"],
    ["report", "behaviour"],
    ["progress"],
    ["engine", "hub", "sidefiles"],
    ["writer"],
    ["manifest", "preflight", "pickled", "lock"],
    ["plan"],
    ["recipe", "alignment", "pairing"],
    ["findings"],
    ["operations"],
    ["layout", "selection"],
    ["anatomy"],
    ["checkpoint"],
    ["header"],
    ["spectral"],
    ["text", "heap"],
    ["errors"],
]


def room(path: Path) -> str:
    """The first part of a module's name inside the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Absolute names of everything a module imports, without what is for type checkers alone."""
    tree = ast.parse(path.read_text())
    parent = ["uvmerge", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        hidden = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        inner = top_level_only and isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if hidden or inner:
            skipped |= set(ast.walk(node)) - {node}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parent[: len(parent) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def inner_rooms(path: Path) -> set[str]:
    """Rooms of the package that a module imports from."""
    rooms = {path.stem for path in PACKAGE.iterdir()}
    names = {n.split(".")[1] for n in imports(path) if n.startswith("uvmerge.")}
    return names & rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_the_house(path: Path) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    here = room(path)
    if here == "__init__":
        return
    assert here in floor, f"{here} has no place in FLOORS"
    up = {other for other in inner_rooms(path) if other != here and floor[other] < floor[here]}
    assert not up, f"{here} imports {up}, which stands above it"


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("click", {"cli"}),
        ("huggingface_hub", {"hub"}),
        ("tqdm", {"progress"}),
        ("yaml", {"recipe", "manifest"}),
        ("matplotlib", {"report"}),
        ("transformers", {"behaviour", "checks", "demo"}),
        ("torch", {"behaviour", "spectral", "engine", "checks", "pickled", "demo"}),
    ],
)
def test_a_package_is_imported_in_its_rooms_only(package: str, rooms: set[str]) -> None:
    users = {room(p) for p in MODULES if any(n.split(".")[0] == package for n in imports(p))}
    assert users <= rooms


def test_slow_packages_are_never_imported_at_the_top() -> None:
    for path in MODULES:
        top = {name.split(".")[0] for name in imports(path, top_level_only=True)}
        assert not top & {"transformers", "huggingface_hub", "matplotlib"}, path


def test_operations_do_no_io_and_import_no_torch() -> None:
    for path in (PACKAGE / "operations").glob("*.py"):
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"torch", "os", "pathlib", "click", "safetensors"}, path


def test_importing_the_whole_tensor_path_leaves_torch_out() -> None:
    code = (
        "import sys, uvmerge.api, uvmerge.cli, uvmerge.recipe, uvmerge.plan, uvmerge.writer\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_function_and_class_has_a_docstring() -> None:
    bare = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        if path.parent.name == "operations" or (
            path.name == "__init__.py" and path.stat().st_size == 0
        ):
            nodes = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
        else:
            assert ast.get_docstring(tree), path
            nodes = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        bare += [
            f"{path.name}:{n.name}" for n in nodes if n.name[0] != "_" and not ast.get_docstring(n)
        ]
    assert not bare


def test_the_file_tree_of_the_readme_is_the_file_tree() -> None:
    text = (ROOT / "README.md").read_text()
    tree = text[text.index("```\nuvmerge/") :].split("```")[1]
    named = set(re.findall(r"^  ([\w/]+?(?:\.py)?)/? |    +([\w]+(?:\.py|/)) ", tree, re.MULTILINE))
    listed = {name.rstrip("/").removesuffix(".py") for pair in named for name in pair if name}
    rooms = {room(path) for path in MODULES} - {"__init__", "__main__"}
    assert rooms <= listed


def test_no_file_is_a_house_of_its_own() -> None:
    long = {p.name: n for p in MODULES if (n := len(p.read_text().splitlines())) > 640}
    assert not long


def test_text_shipped_names_no_place_on_one_machine() -> None:
    tracked = [*MODULES, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/*")]
    for path in tracked:
        assert not re.search(r"/(root|home|work|tmp)/\w", path.read_text()), path
