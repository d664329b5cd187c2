"""A completer without a model: fixed rules write a transfer from what a pack says.

The rules see the pack, and of the prompt the code around the hole. They choose what is to be filled: of
the locals that the code behind the hole uses the nearest one that has setters or is a collection, else
the object that the method returns, else, in a method that returns nothing, its last parameter. Each
property of it is then set from the parameters and locals: from a constant that a comment tells, a
property of the same name, a path along relations whose names make up the property's, or a key that a
foreign key leads to a table, whose objects something in scope looks up; converted by signatures of the
class path where the types differ. What no rule covers stays unset.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .facts import Facts, read_facts
from .java import Type
from .task import Pack, Prompt
from .typing import arguments
from .values import Source, Values, lower, readable, writable

_COLLECTION = re.compile(r"(?:List|Collection|Set|Iterable|ArrayList)<(.*)>")


def complete_by_rules(pack: Pack, prompt: Prompt) -> str:
    """The code that fixed rules write from the pack alone; empty where they know nothing."""
    facts = read_facts(pack, prompt)
    if facts.method is None or not facts.types:
        return ""
    return _Writer(facts, prompt).code()


class _Writer:
    def __init__(self, facts: Facts, prompt: Prompt) -> None:
        self.facts, self.values = facts, Values(facts)
        name = facts.method.name if facts.method is not None else ""
        self.before = prompt.prefix[_last(rf"\b{re.escape(name)}\s*\(", prompt.prefix) :]
        self.after = _until_closed(prompt.suffix, 2)
        self.rest = _until_closed(prompt.suffix, 1)
        self.indent = re.findall(r"^[ \t]*", prompt.prefix.rpartition("\n")[2])[0]
        self.taken = {name for name, _, _ in facts.variables}

    def code(self) -> str:
        """Statements, or the expression that the hole wants."""
        if self.facts.what == "expression":
            found = self.values.value(self.facts.use, self.facts.kind, "", self._sources(""))
            made = self._made(self.facts.kind, self._sources("")) if found is None else None
            return found or made or ""
        lines = self._statements()
        return f"\n{self.indent}".join(lines)

    def _statements(self) -> list[str]:
        for name, kind, origin in self.facts.variables:
            used = re.search(rf"\b{name}\b", self.after)
            if origin == "local" and used:
                lines = self._filled(name, kind)
                if lines:
                    return lines
        method = self.facts.method
        kind = method.type if method is not None else ""
        if kind not in ("", "void") and not re.search(r"\breturn\b", self.rest):
            return self._returned(kind)
        if kind == "void" and method is not None and len(method.parameters) > 1:
            kind, name = method.parameters[-1]
            return self._filled(name, kind)
        return []

    def _sources(self, target: str) -> list[Source]:
        names = [(n, k) for n, k, o in self.facts.variables if n != target and o != "field"]
        return [Source(name, kind) for name, kind in names]

    def _filled(self, name: str, kind: str) -> list[str]:
        """Statements that fill an object or a collection."""
        inside = _COLLECTION.fullmatch(kind)
        if inside is not None:
            for source in self._sources(name):
                held = _COLLECTION.fullmatch(source.kind)
                if held is not None:
                    return self._loop(source, held[1], inside[1], f"{name}.add({{}});", [])
            return []
        found = self.facts.type(kind)
        return self._set(name, found, self._sources(name)) if found is not None else []

    def _set(self, name: str, found: Type, sources: Sequence[Source]) -> list[str]:
        """A statement for each property that is not set yet."""
        lines = []
        for stem, (kind, how) in writable(found, self.facts).items():
            call = f"{name}.{how.partition('(')[0]}("
            if call in self.before or call in self.rest:
                continue
            code = self.values.value(stem, kind, found.name, sources)
            if code is not None:
                lines.append(f"{name}.{how.format(code)};")
            else:
                lines += self._collected(name, stem, kind, how, sources)
        return lines

    def _collected(
        self, name: str, stem: str, kind: str, how: str, sources: Sequence[Source]
    ) -> list[str]:
        """Statements that fill a collection from the related objects of a source."""
        inside = _COLLECTION.fullmatch(kind)
        for source in sources if inside is not None else ():
            found = self.facts.type(source.kind)
            properties = readable(found, self.facts) if found is not None else {}
            related = self.facts.many.get((found.name, stem)) if found is not None else None
            if inside is not None and related is not None and stem in properties:
                held = _COLLECTION.fullmatch(properties[stem][0])
                if held is None:
                    continue
                over = Source(f"{source.code}.{properties[stem][1]}", properties[stem][0])
                rows = self._fresh(f"{stem}")
                made = (
                    f"java.util.List<{self._type(inside[1])}> {rows} = new java.util.ArrayList<>();"
                )
                loop = self._loop(over, held[1], inside[1], f"{rows}.add({{}});", sources)
                return [made, *loop, f"{name}.{how.format(rows)};"] if loop else []
        return []

    def _loop(
        self, over: Source, kind: str, to: str, add: str, sources: Sequence[Source]
    ) -> list[str]:
        """A loop that makes an object of one type for each object of another."""
        each = self._fresh(lower(arguments(kind)[0].rpartition(".")[2]))
        inner = [Source(each, kind), *sources]
        made = self.values.convert(each, kind, to) or self._made(to, inner)
        lines = [add.format(made)] if made is not None else []
        found = self.facts.type(to)
        if made is None and found is not None:
            row = self._fresh(lower(found.simple))
            name = self.values.named(found)
            filled = self._set(row, found, inner)
            lines = [f"{name} {row} = new {name}();", *filled, add.format(row)] if filled else []
        body = [f"    {line}" for line in lines]
        return [f"for ({self._type(kind)} {each} : {over.code}) {{", *body, "}"] if body else []

    def _returned(self, kind: str) -> list[str]:
        """Statements that make and return an object."""
        sources = self._sources("")
        made = self._made(kind, sources)
        if made is not None:
            return [f"return {made};"]
        found = self.facts.type(kind)
        if found is None:
            return []
        name, row = self.values.named(found), self._fresh(lower(found.simple))
        lines = self._set(row, found, sources)
        return [f"{name} {row} = new {name}();", *lines, f"return {row};"] if lines else []

    def _made(self, kind: str, sources: Sequence[Source]) -> str | None:
        """A call of a constructor that takes all that is to be told; None where setters are used."""
        found = self.facts.type(kind)
        if found is None or found.kind not in ("class", "record") or writable(found, self.facts):
            return None
        parts = [(m.type, m.name) for m in found.members if m.kind == "component"]
        if found.kind == "class":
            made = [list(m.parameters) for m in found.members if m.kind == "constructor"]
            parts = max(made, key=len, default=[])
        values = [self.values.value(name, each, found.name, sources) for each, name in parts]
        told = [value for value in values if value is not None]
        if not told or len(told) < len(values):
            return None
        return f"new {self.values.named(found)}({', '.join(told)})"

    def _type(self, written: str) -> str:
        found = self.facts.type(written)
        return self.values.named(found) if found is not None and "<" not in written else written

    def _fresh(self, name: str) -> str:
        """A name that is not in use yet."""
        number, found = 2, name
        while found in self.taken or re.search(rf"\b{found}\b", self.before):
            found, number = f"{name}{number}", number + 1
        self.taken.add(found)
        return found


def _last(pattern: str, text: str) -> int:
    """Where the last match begins; 0 without one."""
    return max((match.start() for match in re.finditer(pattern, text)), default=0)


def _until_closed(text: str, count: int) -> str:
    """The text up to the bracket that closes so many blocks; strings and comments are text too."""
    depth = 0
    for place, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth <= -count:
            return text[:place]
    return text
