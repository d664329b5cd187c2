"""Classes of jars and class folders, as `javap` tells their signatures.

`javap` never opens a jar: class files are read here, with a bound on their size, and handed to it
as files. A jar that unpacks to terabytes is therefore no more than its list of names.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...errors import listed
from ...text import brief
from .java import Unit, read_unit

CLASS_BYTES = 4 << 20
MOST_CLASSES = 200_000
TOLD_BYTES = 16 << 20
SECONDS = 60
_NO_JDK = "javap is not on PATH, so that jars are not read: install a JDK (openjdk-17-jdk-headless)"
_HEAD = re.compile(
    r"^(?P<modifiers>(?:[a-z-]+ )*)(?P<kind>class|interface) (?P<name>[\w.$]+)(?P<rest>.*?) ?\{$"
)
_OF_OBJECT = re.compile(r".*\b(toString\(\)|hashCode\(\)|(equals|compareTo)\(java\.lang\.Object\))")
_QUALIFIED = re.compile(r"\b((?:\w+\.)+)([A-Z]\w*(?:\.[A-Z]\w*)*)")


class Jar:
    """A jar or a folder of classes: names at once, signatures when they are asked for."""

    def __init__(self, path: Path, label: str) -> None:
        self.path, self.label = path, label
        self.notes: list[str] = []
        names = self._names()
        classes = {_name(name): name for name in names if re.fullmatch(r"[\w$/]+\.class", name)}
        self.entries = {name: entry for name, entry in classes.items() if name}

    def _names(self) -> list[str]:
        if self.path.is_dir():
            files = self.path.rglob("*.class")
            return sorted(path.relative_to(self.path).as_posix() for path in files)
        try:
            with zipfile.ZipFile(self.path) as jar:
                names = sorted(info.filename for info in jar.infolist())
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            self.notes.append(f"{self.label} is no jar that can be read: {brief(error)}")
            return []
        if len(names) > MOST_CLASSES:
            self.notes.append(f"{self.label} holds {len(names):,} files, and is left out")
            return []
        return names

    def read(self, names: Iterable[str]) -> dict[str, Unit]:
        """Units by qualified name, of those classes that can be read."""
        wanted = [name for name in names if name in self.entries]
        javap = shutil.which("javap")
        if javap is None:
            self._note(_NO_JDK)
            return {}
        with tempfile.TemporaryDirectory() as folder:
            paths: list[Path] = []
            for name in wanted:
                data = self._bytes(self.entries[name])
                if data is not None:
                    paths.append(Path(folder) / f"{len(paths)}.class")
                    paths[-1].write_bytes(data)
            text = _told(javap, paths) if paths else ""
        found = {name: unit for name, unit in _units(text, self) if name in self.entries}
        lacking = [name for name in wanted if name not in found]
        if lacking:
            self._note(f"{self.label}: cannot read {listed(lacking, 'class', 3)}")
        return found

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def _bytes(self, entry: str) -> bytes | None:
        """A class file; None where it is broken, or larger than a class can be."""
        try:
            if self.path.is_dir():
                with (self.path / entry).open("rb") as file:
                    data = file.read(CLASS_BYTES + 1)
            else:
                with zipfile.ZipFile(self.path) as jar, jar.open(entry) as member:
                    data = member.read(CLASS_BYTES + 1)
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError,
                EOFError, zlib.error):  # fmt: skip
            return None
        return data if len(data) <= CLASS_BYTES else None


def _name(entry: str) -> str:
    """`a.b.Outer.Inner` of `a/b/Outer$Inner.class`; empty for a class without a name."""
    name = entry.removesuffix(".class").replace("/", ".")
    if re.search(r"\$\d|\$$|-info$", name):
        return ""
    return name.replace("$", ".")


def _told(javap: str, paths: list[Path]) -> str:
    """What `javap` prints of class files; empty where it is too much or takes too long."""
    command = [javap, "-J-Xmx128m", "-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1", "-public"]
    with subprocess.Popen(
        [*command, *map(str, paths)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        try:
            told = process.stdout.read(TOLD_BYTES + 1) if process.stdout else b""
        finally:
            timer.cancel()
            process.kill()
    return told.decode(errors="replace") if len(told) <= TOLD_BYTES else ""


def _units(text: str, jar: Jar) -> Iterator[tuple[str, Unit]]:
    """Each class of what `javap` printed, read as the Java source that it nearly is."""
    head: re.Match[str] | None = None
    members: list[str] = []
    for line in text.splitlines():
        head = _HEAD.match(line) or head
        if head is None:
            continue
        if line == "}":
            name = head["name"].replace("$", ".")
            yield name, _unit(head, members, f"{jar.label}!/{jar.entries.get(name, '')}")
            head, members = None, []
        elif line.startswith("  "):
            members.append(line.strip())


def _unit(head: re.Match[str], members: list[str], file: str) -> Unit:
    package, _, nested = head["name"].rpartition(".")
    names = nested.split("$")
    kind, rest, body = _shape(head, members, names[-1])
    imports: dict[str, str] = {}

    def short(match: re.Match[str]) -> str:
        name, qualified = match[2], match[1] + match[2]
        first = name.partition(".")[0]
        imports.setdefault(first, match[1] + first)
        return name if imports[first] == match[1] + first else qualified

    lines = [_QUALIFIED.sub(short, line.replace("$", ".")) for line in [rest, *body]]
    opened = "".join(f"class {outer} {{ " for outer in names[:-1])
    source = f"{opened}{head['modifiers']}{kind} {names[-1]}{lines[0]} {{\n"
    unit = read_unit(source + "\n".join(lines[1:]) + "}" * len(names), file, library=True)
    unit.package = package
    unit.types = [each for each in unit.types if each.name == ".".join(names)]
    unit.imports = {n: q for n, q in imports.items() if q.rpartition(".")[0] != package}
    for each in unit.types:
        each.line = 1
    return unit


def _shape(head: re.Match[str], members: list[str], name: str) -> tuple[str, str, list[str]]:
    """What kind of type it is, its generics and parents, and its members as Java."""
    rest, kind = head["rest"], head["kind"]
    constants: list[str] = []
    if rest.startswith(" extends java.lang.Enum<"):
        kind, rest = "enum", rest.partition(">")[2]
        own = re.compile(rf"public static final \S*\b{re.escape(name)} (\w+);")
        constants = [match[1] for line in members if (match := own.fullmatch(line))]
        made = re.compile(r".*\b(values\(\)|valueOf\(java\.lang\.String\));")
        members = [line for line in members if not own.fullmatch(line) and not made.match(line)]
    rest = re.sub(r" extends java\.lang\.(Object|Record)(?= |$)", "", rest)
    body = [_member(line, head["name"]) for line in members if not _OF_OBJECT.match(line)]
    return kind, rest, [", ".join(constants) + ";", *body] if kind == "enum" else body


def _member(line: str, owner: str) -> str:
    """A line of `javap` with names of parameters, and with a body where it makes an object."""
    before, bracket, after = line.partition("(")
    if not bracket:
        return line
    parameters = _parted(after.rpartition(")")[0])
    named = ", ".join(f"{kind} {chr(97 + n % 26)}" for n, kind in enumerate(parameters))
    modifiers, _, name = before.rpartition(" ")
    if name.replace("$", ".") == owner.replace("$", "."):
        return f"{modifiers} {re.split('[.$]', name)[-1]}({named}) {{}}"
    return f"{before}({named});"


def _parted(text: str) -> list[str]:
    """Types between commas, those of generics left whole."""
    found, depth = [""], 0
    for character in text:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and not depth:
            found.append("")
        else:
            found[-1] += character
    return [each.strip() for each in found if each.strip()]
