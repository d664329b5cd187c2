"""Index and pack of a generated Java project.

    python benchmarks/ccci.py FOLDER [--classes 2000] [--holes 50] [--rounds 3]

The project has entities that refer to one another, their DTOs, repositories and mappers, and a table for
each entity. A process of its own reads it and packs the context of holes in its mappers. Goals: 10 s and
300 MB for the index, and 20 ms for each hole.

Writes benchmarks/results/ccci.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import time
from pathlib import Path

from measure import about, medians, process, table, write_result

KINDS = ("entity", "dto", "repository", "mapper")
FIELDS = 10


def class_text(package: str, name: str, fields: list[tuple[str, str]], head: str = "") -> str:
    """A class with a getter and a setter for each field."""
    lines = [f"package app.{package};", "import java.util.List;", "import app.entity.*;", head]
    lines += [f"/** One {name}. */", f"public class {name} {{"]
    lines += [f"    private {kind} {field};" for kind, field in fields]
    for kind, field in fields:
        stem = field[0].upper() + field[1:]
        lines += [f"    public {kind} get{stem}() {{", f"        return {field};", "    }"]
        lines += [f"    public void set{stem}({kind} {field}) {{"]
        lines += [f"        this.{field} = {field};", "    }"]
    return "\n".join([*lines, "}", ""])


def write_project(folder: Path, classes: int) -> None:
    """Entities, DTOs, repositories and mappers, a quarter of the classes each."""
    shutil.rmtree(folder, ignore_errors=True)
    for kind in KINDS:
        (folder / "src/app" / kind).mkdir(parents=True)
    generator, count, ddl = random.Random(1), classes // len(KINDS), []
    for n in range(count):
        others = [f"Entity{generator.randrange(count)}" for _ in range(3)]
        plain = [("long" if i % 3 == 0 else "String", f"value{i}") for i in range(FIELDS)]
        related = [(others[0], "first"), (f"List<{others[1]}>", "many"), ("Long", "otherId")]
        files = {
            "entity": class_text("entity", f"Entity{n}", [*plain, *related]),
            "dto": class_text("dto", f"Dto{n}", [*plain, ("String", "firstValue1")]),
            "repository": f"package app.repository;\nimport app.entity.*;\n"
            f"public interface Repository{n} {{\n    Entity{n} findById(Long id);\n}}\n",
            "mapper": f"package app.mapper;\nimport app.dto.Dto{n};\nimport app.entity.Entity{n};\n"
            f"import app.repository.Repository{n};\npublic class Mapper{n} {{\n"
            f"    private final Repository{n} repository = null;\n"
            f"    /** Fills one. */\n    public Dto{n} map(Entity{n} entity) {{\n"
            f"        Dto{n} dto = new Dto{n}();\n        /*HOLE*/\n        return dto;\n    }}\n}}\n",
        }  # fmt: skip
        for kind, text in files.items():
            (folder / "src/app" / kind / f"{kind.capitalize()}{n}.java").write_text(text)
        columns = [f"value{i} {'BIGINT' if i % 3 == 0 else 'VARCHAR(80)'}" for i in range(FIELDS)]
        key = f"other_id BIGINT REFERENCES entity{generator.randrange(count)}"
        ddl.append(f"CREATE TABLE entity{n} (id BIGINT PRIMARY KEY, {', '.join(columns)}, {key});")
    (folder / "schema.sql").write_text("\n".join(ddl))


def measured(folder: Path, holes: int) -> None:
    """Read the project, pack holes, and print the figures as JSON."""
    from uvmerge.tasks.ccci import open_index

    start, cpu = time.perf_counter(), time.process_time()
    index = open_index(folder / "src", schema=[folder / "schema.sql"])
    figures = {
        "index_s": time.perf_counter() - start,
        "index_cpu_s": time.process_time() - cpu,
        "types": len(index.types.types),
        "tables": len(index.schema.tables),
    }
    spent, tokens = [], []
    files = sorted((folder / "src/app/mapper").iterdir())
    for file in files[:: max(len(files) // holes, 1)][:holes]:
        cpu = time.process_time()
        found = index.pack(file)
        spent.append(1000 * (time.process_time() - cpu))
        tokens.append(found.tokens)
    figures |= {"pack_cpu_ms": statistics.median(spent), "pack_cpu_ms_most": max(spent)}
    print(json.dumps(figures | {"pack_tokens": statistics.median(tokens)}))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--classes", type=int, default=2000)
    options.add_argument("--holes", type=int, default=50)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    settings = options.parse_args()
    if settings.measured:
        measured(settings.folder, settings.holes)
        return
    write_project(settings.folder, settings.classes)
    words = [settings.folder, "--measured", "--holes", settings.holes]
    runs = [process([sys.executable, __file__, *map(str, words)]) for _ in range(settings.rounds)]
    each = [json.loads(run.output) for run in runs]
    found = {key: round(statistics.median(one[key] for one in each), 3) for key in each[0]}
    found |= medians(runs)
    size = {"classes": settings.classes, "holes": settings.holes}
    size["processes_waiting"] = round(os.getloadavg()[0])  # on a loaded machine, cpu_s tells more
    write_result(
        "ccci", about("uvmerge", "tree-sitter", "tree-sitter-java", "sqlglot") | size | found
    )
    print(table([("figure", "value"), *found.items()]))


if __name__ == "__main__":
    main()
