"""The types of a project and of its class path, and which of them a name means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import InputRefused
from ...text import brief
from .jars import Jar
from .java import Type, Unit, read_unit

SOURCE_BYTES = 4 << 20
MOST_SOURCES = 50_000
JDK = ("java.", "javax.", "jdk.", "org.w3c.", "org.xml.")
_LANG = frozenset(
    [
        "Appendable",
        "AutoCloseable",
        "Boolean",
        "Byte",
        "CharSequence",
        "Character",
        "Class",
        "ClassLoader",
        "Cloneable",
        "Comparable",
        "Deprecated",
        "Double",
        "Enum",
        "Error",
        "Exception",
        "Float",
        "FunctionalInterface",
        "IllegalArgumentException",
        "IllegalStateException",
        "IndexOutOfBoundsException",
        "Integer",
        "Iterable",
        "Long",
        "Math",
        "NullPointerException",
        "Number",
        "NumberFormatException",
        "Object",
        "Override",
        "Process",
        "Record",
        "Runnable",
        "RuntimeException",
        "SafeVarargs",
        "Short",
        "String",
        "StringBuffer",
        "StringBuilder",
        "SuppressWarnings",
        "System",
        "Thread",
        "ThreadLocal",
        "Throwable",
        "UnsupportedOperationException",
        "Void",
    ]
)
_PRIMITIVE = frozenset(
    ["boolean", "byte", "char", "short", "int", "long", "float", "double", "void", "var"]
)
_NAME = re.compile(r"(?<![\w.@])[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*")


def names_in(written: str) -> list[str]:
    """Names of the types in a type as written: `Map<String, shop.Order>` has three."""
    found = _NAME.findall(re.sub(r"\s*\.\s*", ".", re.sub(r"@[\w.]+(\([^)]*\))?", "", written)))
    return [name for name in found if name not in _PRIMITIVE and name not in ("extends", "super")]


class TypeIndex:
    """Types by name.

    Attributes:
        notes: what could not be read.
    """

    def __init__(self, root: Path, classpath: Sequence[str | Path] = ()) -> None:
        self.root = root.resolve()
        self.units: dict[str, Unit] = {}
        self.types: dict[str, Type] = {}
        self.jars: list[Jar] = []
        self.notes: list[str] = []
        self._missing: set[str] = set()
        libraries = sorted((self.label(Path(p)), Path(p)) for p in classpath)
        folders = {path.resolve() for _, path in libraries if path.is_dir()}
        self._read_sources(self.root, "", library=False, leave=folders)
        for label, path in libraries:
            if not (path.is_file() or path.is_dir()):
                do = "Name a jar, or a folder of classes or sources."
                raise InputRefused(brief(path), "there is no such entry of the class path", do)
            if path.is_dir():
                self._read_sources(path.resolve(), f"{label}/", library=True, leave=set())
            jar = Jar(path, label)
            if jar.entries or jar.notes:
                self.jars.append(jar)

    def label(self, path: Path) -> str:
        """How a file is called in a pack: from the project's folder on, or by its name alone."""
        whole = path.resolve()
        if whole.is_relative_to(self.root):
            return whole.relative_to(self.root).as_posix()
        return whole.name

    def all_notes(self) -> list[str]:
        """What could not be read, of sources and of jars."""
        return [*self.notes, *(note for jar in self.jars for note in jar.notes)]

    def _read_sources(self, folder: Path, prefix: str, library: bool, leave: set[Path]) -> None:
        for path in _java_files(folder, leave):
            label = prefix + path.relative_to(folder).as_posix()
            text = self._text(path, label)
            if text is not None:
                self.add(read_unit(text, label, library))

    def _text(self, path: Path, label: str) -> str | None:
        try:
            if path.stat().st_size > SOURCE_BYTES:
                self.notes.append(f"{label} is larger than a source can be, and is left out")
                return None
            return path.read_bytes().decode()
        except UnicodeDecodeError as error:
            self.notes.append(f"{label} is not UTF-8 (byte {error.start:,}), and is left out")
        except OSError as error:
            self.notes.append(f"{label} cannot be read, and is left out: {error.strerror}")
        return None

    def add(self, unit: Unit) -> None:
        """Take in a unit; of two types with one name the first counts."""
        self.units[unit.file] = unit
        for each in unit.types:
            first = self.types.setdefault(each.qualified, each)
            if first is not each and not unit.library:
                self.notes.append(
                    f"{each.qualified} is declared twice, in {first.unit.file}:{first.line} and"
                    f" {unit.file}:{each.line}: the first counts"
                )

    def find(self, qualified: str) -> Type | None:
        """The type of a qualified name, read from a jar if need be."""
        if qualified in self.types or qualified in self._missing:
            return self.types.get(qualified)
        for jar in self.jars:
            if qualified in jar.entries:
                for unit in jar.read([qualified]).values():
                    self.add(unit)
                break
        if qualified not in self.types:
            self._missing.add(qualified)
        return self.types.get(qualified)

    def resolve(self, name: str, unit: Unit, within: str = "") -> Type | str | None:
        """Which type a name means in a unit.

        Args:
            within: the name of the type around it.

        Returns:
            the type; the qualified name of an unknown type; or None for a type of the JDK.
        """
        head, _, rest = name.partition(".")
        for candidate in self._candidates(head, unit, within):
            qualified = f"{candidate}.{rest}" if rest else candidate
            own = next((each for each in unit.types if each.qualified == qualified), None)
            found = own or self.find(qualified)
            if found is not None:
                return found
        if head in unit.imports:
            name = f"{unit.imports[head]}.{rest}" if rest else unit.imports[head]
            return None if name.startswith(JDK) else name
        if rest and head[:1].islower():
            return self.find(name) or (None if name.startswith(JDK) else name)
        others = [each for each in unit.wildcards if not each.startswith(JDK)]
        if head in _LANG or (len(others) < len(unit.wildcards) and not others):
            return None
        return f"{unit.package}.{name}" if unit.package and not others else name

    def _candidates(self, head: str, unit: Unit, within: str) -> Iterator[str]:
        """Qualified names that the first word of a name may have, in Java's order."""
        package = f"{unit.package}." if unit.package else ""
        while within:
            yield f"{package}{within}.{head}"
            within = within.rpartition(".")[0]
        if any(each.name == head for each in unit.types):
            yield f"{package}{head}"
        if head in unit.imports:
            yield unit.imports[head]
            return
        yield f"{package}{head}"
        yield from (f"{each}.{head}" for each in unit.wildcards)


def _java_files(folder: Path, leave: set[Path]) -> Iterator[Path]:
    """Sources below a folder in the order of their names; hidden and left folders are passed by."""
    found = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [n for n in folders if not n.startswith(".") and here / n not in leave]
        named = (here / name for name in files if name.endswith(".java"))
        found += [path for path in named if path.is_file()]
        if len(found) > MOST_SOURCES:
            what = f"holds more than {MOST_SOURCES:,} Java sources"
            raise InputRefused(brief(folder), what, "Name the folder of one project with --root.")
    return iter(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))
