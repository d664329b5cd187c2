"""Which tensors an operation edits: by layer, by module, by glob. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import InputRefused, UsageError, counted
from ..text import brief, closest
from .anatomy import MODULES, Place
from .bounded import is_text
from .modules import module_of_word
from .stacks import Stack

DEFAULT_MODULES = ("attention", "mlp", "mixer")


@dataclass(frozen=True)
class Selection:
    """The filters of one step; `None` and `()` mean "not given".

    Attributes:
        layers: decoder layers, counted from 0.
        modules: names out of `MODULES`, or `all`.
        include: globs on tensor names; with them alone, every module is eligible.
        exclude: globs on tensor names to leave out.
        stack: stacks by name (`model.layers`), by the start of it (`model`), or by kind (`vision`).
    """

    layers: tuple[int, ...] | None = None
    modules: tuple[str, ...] | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    stack: tuple[str, ...] | None = None

    def seen(self, place: Place) -> Place:
        """The place as the step sees it: outside of all layers where it skips the stack."""
        return place if place.stack is None or self.covers(place) else place.outside

    def covers(self, place: Place) -> bool:
        """Whether the step works on the stack that a tensor stands in."""
        if self.stack is None or place.stack is None:
            return place.is_main
        return any(_means(word, place.stack, place.kind) for word in self.stack)

    def names_module(self, module: str) -> bool:
        """Whether the user named `module` (or `all`), rather than leaving it to the default."""
        return module in (self.modules or ()) or "all" in (self.modules or ())

    def picks(self, name: str, place: Place, *, matrices_only: bool) -> bool:
        """Whether the step selects the tensor `name` at `place`.

        By default an operation on matrices gets the attention, MLP and mixer matrices in the layers
        of the main stacks, and an operation on tensors of any shape gets every tensor. Where the
        user names stacks, no tensor outside of them is selected.
        """
        if matrices_only and not place.is_matrix:
            return False
        if self.stack is not None and (place.stack is None or not self.covers(place)):
            return False
        place = self.seen(place)
        if self.layers is not None and place.layer not in self.layers:
            return False
        modules = self.modules
        if modules is None and matrices_only and not self.include:
            modules = DEFAULT_MODULES
        if modules is not None and "all" not in modules and place.module not in modules:
            return False
        if self.include and not any(fnmatchcase(name, glob) for glob in self.include):
            return False
        return not any(fnmatchcase(name, glob) for glob in self.exclude)

    def check(self, stacks: Sequence[Stack], main: Sequence[Stack]) -> None:
        """Refuse stacks and layers that the model does not have.

        Args:
            stacks: all stacks of the model.
            main: the stacks that operations work on by default.

        Raises:
            InputRefused: the model lacks a named stack, or a layer that was asked for.
        """
        chosen = list(main)
        if self.stack is not None:
            chosen = []
            for word in self.stack:
                meant = [stack for stack in stacks if _means(word, stack.name, stack.kind)]
                if not meant:
                    raise InputRefused(
                        "stack",
                        f"the model has no stack {brief(word)!r}",
                        f"{_meant_stack(word, stacks)}It has"
                        f" {', '.join(map(str, stacks)) or 'none'}.",
                    )
                chosen += meant
        depth = max((stack.depth for stack in chosen), default=0)
        beyond = [str(layer) for layer in self.layers or () if layer >= depth]
        if beyond:
            more = ", …" if len(beyond) > 5 else ""
            numbers = f" (0 to {depth - 1})" if depth > 1 else ""
            raise InputRefused(
                "layers",
                f"the model has {counted(depth, 'layer')}{numbers}, not layer"
                f" {', '.join(beyond[:5])}{more}",
                "Layers are counted from 0, in each stack.",
            )

    def idle_globs(self, names: Iterable[str]) -> list[str]:
        """The globs that match none of `names`."""
        names = list(names)
        globs = (*self.include, *self.exclude)
        return [glob for glob in globs if not any(fnmatchcase(name, glob) for name in names)]


def _means(word: str, name: str, kind: str) -> bool:
    """Whether a word of `--stack` means the stack of this name and kind."""
    return word in (name, kind) or name.startswith(f"{word}.")


def _meant_stack(word: str, stacks: Sequence[Stack]) -> str:
    """`Did you mean 'model.decoder'? `, where `word` is a part of the name of one stack or more."""
    for stack in stacks:
        parts = stack.name.split(".")
        if word in parts:
            return f"Did you mean {'.'.join(parts[: parts.index(word) + 1])!r}? "
    return ""


def parse_layers(value: object) -> tuple[int, ...]:
    """`0-9,12`, `3`, or a sequence of integers, as sorted layer numbers."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Sequence)):
        raise UsageError(
            "layers", f"{brief(value)} is not a list of layers", "Write it like 0-9,12."
        )
    pieces = (
        value.split(",")
        if isinstance(value, str)
        else value
        if isinstance(value, Sequence)
        else [value]
    )
    layers: set[int] = set()
    for piece in pieces:
        first, dash, last = str(piece).strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 12:
            raise UsageError(
                "layers", f"'{brief(piece)}' is not a layer or a range", "Write it like 0-9,12."
            )
        start, stop = int(first), int(last or first)
        if stop < start or stop - start > 100_000:
            raise UsageError(
                "layers", f"'{brief(piece)}' is not a range of layers", "Write it like 0-9,12."
            )
        layers.update(range(start, stop + 1))
    return tuple(sorted(layers))


def parse_layer_map(value: object) -> dict[int, int]:
    """`0-2:0-2,3-5:5-7` (FINETUNED:BASE) as the base layer that each fine-tuned layer is."""
    found: dict[int, int] = {}
    for piece in str(value).split(","):
        ours, colon, theirs = piece.partition(":")
        if not colon:
            what = f"'{brief(piece)}' is not a pair of layers"
            raise UsageError("layer-map", what, "Write it like 0-2:0-2,3-5:5-7 (FINETUNED:BASE).")
        mine, other = parse_layers(ours), parse_layers(theirs)
        if len(mine) != len(other):
            what = f"'{brief(piece)}' maps {len(mine)} layers to {len(other)}"
            raise UsageError("layer-map", what, "Both ranges need the same length.")
        if twice := found.keys() & set(mine):
            raise UsageError("layer-map", f"maps layer {min(twice)} twice", "Map each layer once.")
        found |= dict(zip(mine, other))
    return found


def parse_modules(value: object) -> tuple[str, ...]:
    """`attention,mlp` or a sequence of module names, each one known."""
    modules = parse_names(value)
    for module in modules:
        if module not in (*MODULES, "all"):
            raise UsageError(
                "modules",
                f"'{brief(module)}' is not a module",
                f"{_meant_module(module)}Choose from {', '.join(MODULES)}, all.",
            )
    return modules


def _meant_module(word: str) -> str:
    """`Did you mean 'attention'? `, of a word that is spelled like a module or names a part of one."""
    meant = closest(word.lower(), (*MODULES, "all")) or module_of_word(word.replace("-", "_"))
    return f"Did you mean {meant!r}? " if meant else ""


def parse_globs(value: object) -> tuple[str, ...]:
    """Globs on tensor names, checked to be few and short enough to be matched quickly."""
    globs = parse_names(value)
    if len(globs) > 100 or any(len(glob) > 200 for glob in globs):
        raise UsageError(
            "globs", "more than 100, or one longer than 200 characters", "Use wider globs."
        )
    return globs


def parse_names(value: object) -> tuple[str, ...]:
    """A comma-separated string, or a sequence of strings, as a tuple of strings."""
    pieces = value.split(",") if isinstance(value, str) else value
    if not isinstance(pieces, Sequence) or not all(isinstance(piece, str) for piece in pieces):
        raise UsageError(
            "names", f"{brief(value)} is not a list of names", "Separate them by commas."
        )
    if odd := [piece for piece in pieces if not is_text(piece)]:
        raise UsageError("names", f"'{brief(odd[0])}' is not valid text", "Write it in UTF-8.")
    return tuple(piece.strip() for piece in pieces if piece.strip())
