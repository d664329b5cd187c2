"""The house keeps its shape: arrows of imports, sizes, what is imported when, the README's file tree."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import uvmerge

PACKAGE = Path(uvmerge.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)

# The rooms from top to bottom: each may import those of the lines below its own, and itself.
FLOORS = [
    ["cli"],
    ["study"],
    ["demo"],
    ["api"],
    ["stores"],
    ["hub", "report", "engine"],
    ["output", "tasks", "training"],
    ["models"],
    ["plan"],
    ["recipe"],
    ["operations"],
    ["measure"],
    ["spectral", "checkpoint"],
    ["text"],
    ["errors"],
]
TOP = {"__init__", "__main__"}  # they may import from everywhere


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


def dotted(path: Path) -> str:
    """`uvmerge.plan.layout` of a module's path; a package is its `__init__`."""
    return ".".join(["uvmerge", *path.relative_to(PACKAGE).with_suffix("").parts])


def module_graph() -> dict[str, set[str]]:
    """Per module the modules of this package that it imports, wherever in its text it does so."""
    known = {dotted(path) for path in MODULES}
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        here = graph.setdefault(dotted(path), set())
        for name in imports(path):
            parts = name.split(".")
            ends = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            found = (each for end in ends for each in (end, f"{end}.__init__") if each in known)
            here |= {target for target in [next(found, None)] if target}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Every circle of imports, found by taking away, again and again, what imports nothing left."""
    left = {module: set(others) for module, others in graph.items()}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    return [[module, *sorted(others & left.keys())] for module, others in left.items()]


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})  # the check sees a circle
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    assert not circles(module_graph())


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_the_house(path: Path) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    here = room(path)
    if here in TOP:
        return
    assert here in floor, f"{here} has no place in FLOORS"
    up = {other for other in inner_rooms(path) if other != here and floor[other] <= floor[here]}
    assert not up, f"{here} imports {up}, which does not stand below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_reaches_into_what_another_one_keeps_to_itself(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    attributes = [n for n in nodes if isinstance(n, ast.Attribute) and re.match("_[a-z]", n.attr)]
    own = {n.attr for n in attributes if ast.unparse(n.value) in ("self", "cls")}
    own |= {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    reached = {ast.unparse(n) for n in attributes if n.attr not in own}
    assert not reached - {"os._exit", "kernels._kernels_enabled"}  # of other packages


def test_the_top_of_the_package_holds_rooms_and_the_ground_alone() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert files == {*TOP, "errors", "text"}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == {name for names in FLOORS for name in names} - {"errors", "text"}


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("click", {"cli"}),
        ("huggingface_hub", {"hub"}),
        ("fsspec", {"stores"}),
        ("tqdm", {"engine"}),
        ("yaml", {"recipe", "output"}),
        ("matplotlib", {"report"}),
        ("datasets", {"tasks"}),
        ("ray", {"engine"}),
        ("transformers", {"models", "demo", "training"}),
        ("peft", {"models", "study", "training"}),  # adapters as inputs are merged in models alone
        (
            "torch",
            {
                "models",
                "measure",
                "spectral",
                "engine",
                "api",
                "checkpoint",
                "demo",
                "training",
                "study",
            },
        ),
    ],
)
def test_a_package_is_imported_in_its_rooms_only(package: str, rooms: set[str]) -> None:
    users = {room(p) for p in MODULES if any(n.split(".")[0] == package for n in imports(p))}
    assert users <= rooms


def test_the_planner_alone_makes_plans_and_nothing_changes_one() -> None:
    makers, changers = set(), set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called, given = ast.unparse(node.func), [ast.unparse(each) for each in node.args]
                if called.split(".")[-1] == "Plan":
                    makers.add(path.stem)
                if called.split(".")[-1] == "replace" and given and given[0].endswith("plan"):
                    changers.add(path.stem)
    # `file` reads back what was made; `calibration` times a plan of smaller tensors.
    assert (makers, changers) == ({"planner", "file"}, {"calibration"})


def test_models_are_loaded_in_one_place() -> None:
    users = {p for p in MODULES if any(n.split(".")[0] == "transformers" for n in imports(p))}
    loading = {PACKAGE / "models" / f"{name}.py" for name in ("load", "classes", "sealing")}
    others = {PACKAGE / "demo" / "train.py", PACKAGE / "training" / "hooks.py"}
    assert users == loading | others
    for path in (p for p in set(MODULES) - loading if ".from_" in p.read_text()):
        called = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not {ast.unparse(n).split(".")[-1] for n in called} & {
            "from_pretrained",
            "from_config",
        }


def test_slow_packages_are_never_imported_at_the_top() -> None:
    for path in MODULES:
        top = {name.split(".")[0] for name in imports(path, top_level_only=True)}
        assert not top & {
            "transformers",
            "huggingface_hub",
            "matplotlib",
            "datasets",
            "peft",
            "ray",
        }, path


def test_operations_do_no_io_and_import_no_torch() -> None:
    for path in (PACKAGE / "operations").glob("*.py"):
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"torch", "os", "pathlib", "click", "safetensors"}, path


def test_importing_the_whole_tensor_path_leaves_torch_out() -> None:
    code = (
        "import sys, uvmerge.api.run, uvmerge.api.sweep, uvmerge.cli.main, uvmerge.output.writer\n"
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


def test_the_readme_tells_every_room_in_a_sentence() -> None:
    text = (ROOT / "README.md").read_text()
    tree = text[text.index("```\nuvmerge/") :].split("```")[1]
    told = dict(re.findall(r"^  (\w+)(?:/|\.py) +(\S.*)$", tree, re.MULTILINE))
    rooms = {room(path) for path in MODULES} - TOP
    assert rooms == told.keys() and all(len(sentence) > 20 for sentence in told.values())


def test_no_file_is_a_house_of_its_own() -> None:
    long = {p.name: n for p in MODULES if (n := len(p.read_text().splitlines())) >= 350}
    assert not long


def test_text_shipped_names_no_place_on_one_machine() -> None:
    tracked = [
        *MODULES,
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("recipes/*"),
    ]
    for path in tracked:
        assert not re.search(r"/(root|home|work|tmp)/\w", path.read_text()), path


def functions(path: Path) -> list[ast.FunctionDef]:
    """Every function of a module, methods and inner ones included."""
    return [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    ]


def length(function: ast.FunctionDef) -> int:
    """Its lines, those of the docstring not counted."""
    first, last = function.lineno, function.end_lineno or function.lineno
    told = function.body[0] if ast.get_docstring(function) is not None else None
    return last - first + 1 - (0 if told is None else (told.end_lineno or 0) - told.lineno + 1)


def parameters(function: ast.FunctionDef) -> int:
    """How many it takes, `self` not counted."""
    named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    others = [function.args.vararg, function.args.kwarg]
    return sum(a.arg not in ("self", "cls") for a in named) + sum(a is not None for a in others)


def test_functions_are_short_and_take_little() -> None:
    """An operation's keyword-only options are its schema, and not counted here."""
    everything = [(path, function) for path in MODULES for function in functions(path)]
    lengths = [length(function) for _, function in everything]
    assert statistics.median(lengths) <= 8
    long = [f"{p.name}:{f.name}" for (p, f), n in zip(everything, lengths) if n > 60]
    wide = [
        f"{path.name}:{function.name}"
        for path, function in everything
        if parameters(function) > 8 and path.parent.name != "operations"
    ]
    assert not long and not wide
