"""The models of mergekit's YAML as data: modules of slices of sources, each with its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..checkpoint.anatomy import Place
from ..checkpoint.restacked import BEHIND, renumbered
from ..operations.varying import Rule

Settings = Mapping[str, tuple[Rule, ...]]  # by word, the rules of one level
DEFAULT = "default"  # the module of a model that has one


@dataclass(frozen=True)
class Source:
    """A model in a slice.

    Attributes:
        model: its reference.
        layers: the layers that are taken, from one to before another; None for all.
        settings: values of parameters for this model.
        where: file and line, for messages.
    """

    model: str
    layers: tuple[int, int] | None = None
    settings: Settings = field(default_factory=dict)
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Slice:
    """Layers of the output that are made of the same models.

    Attributes:
        sources: the models, in order.
        base: the reference of the slice's base; None where it has none.
        settings: values of parameters for the slice.
    """

    sources: tuple[Source, ...]
    base: str | None = None
    settings: Settings = field(default_factory=dict)
    where: str = field(default="", compare=False)

    @property
    def count(self) -> int | None:
        """How many layers the slice has; None for all of a model."""
        layers = self.sources[0].layers
        return None if layers is None else layers[1] - layers[0]


@dataclass(frozen=True)
class Module:
    """A part of the model, with a stack of layers of its own or none.

    Attributes:
        name: as the file has it; `DEFAULT` for the whole model.
        slices: from the first layer on.
        settings: values of parameters for the module.
    """

    name: str
    slices: tuple[Slice, ...]
    settings: Settings = field(default_factory=dict)
    where: str = field(default="", compare=False)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The slices with the layers of the output that they make."""
        found, start = [], 0
        for each in self.slices:
            stop = None if each.count is None else start + each.count
            found.append(Span(self, each, start, stop))
            start = stop or 0
        return tuple(found)


@dataclass(frozen=True)
class Span:
    """A slice, and the layers of the output that it makes: from `start` to before `stop`.

    Attributes:
        stop: None where the slice has all layers of its models.
    """

    module: Module
    part: Slice
    start: int
    stop: int | None

    def position(self, place: Place) -> float:
        """Where a layer stands in the slice, from 0 to 1; 0 outside of all layers.

        The only layer of a slice stands at its end.
        """
        if place.layer is None:
            return 0.0
        count = (place.depth if self.stop is None else self.stop) - self.start
        return (place.layer - self.start) / (count - 1) if count > 1 else 1.0

    def name_in(self, source: Source, name: str, place: Place) -> str:
        """The name in a source of the tensor `name` of the output."""
        if place.layer is None or source.layers is None or source.layers[0] == self.start:
            return name
        number = place.layer - self.start + source.layers[0]
        return renumbered(name, str(place.stack), place.layer, number)


@dataclass(frozen=True)
class Layout:
    """Which models make which part of the output.

    Attributes:
        takes_base: whether the operation has an operand `base`; else a base is one more model.
        modules: the parts.
        settings: values of parameters for everything.
        owners: by tensor of the output the name of its module, where there are several.
    """

    takes_base: bool
    modules: tuple[Module, ...]
    settings: Settings = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def slices(self) -> Iterator[Slice]:
        for module in self.modules:
            yield from module.slices

    @property
    def has_ranges(self) -> bool:
        """Whether the file names ranges of layers, which may be put together in another way."""
        return any(source.layers for part in self.slices for source in part.sources)

    def span_of(self, name: str, place: Place) -> Span:
        """Where the tensor `name` of the output at `place` stands in the layout."""
        owner = self.owners.get(name, self.modules[0].name)
        module = next((each for each in self.modules if each.name == owner), self.modules[0])
        spans = module.spans
        if place.layer is None:
            return spans[-1] if place.module in BEHIND else spans[0]
        inside = (span for span in spans if span.stop is None or place.layer < span.stop)
        return next(inside, spans[-1])

    def count_at(self, name: str, place: Place) -> int:
        """How many of the operands `models` make the tensor `name` of the output at `place`."""
        return len(self.models_of(self.span_of(name, place).part))

    def base_of(self, part: Slice) -> Source | None:
        """The source that a slice gives as the operand `base`."""
        if not self.takes_base:
            return None
        return next((source for source in part.sources if source.model == part.base), None)

    def models_of(self, part: Slice) -> tuple[Source, ...]:
        """The sources that a slice gives as the operand `models`, in order."""
        if self.takes_base:
            return tuple(source for source in part.sources if source.model != part.base)
        own = [source for source in part.sources if source.model == part.base]
        return (*own, *(source for source in part.sources if source.model != part.base))

    def references(self) -> dict[str, str | tuple[str, ...]]:
        """The references of all models by operand, each once, in the order in which slices name them."""
        bases = [source.model for part in self.slices if (source := self.base_of(part))]
        models = dict.fromkeys(s.model for part in self.slices for s in self.models_of(part))
        others = dict.fromkeys([*models, *bases[1:]])
        if not bases:
            return {"models": tuple(others)}
        others.pop(bases[0], None)
        return {"base": bases[0], "models": tuple(others)}

    @property
    def is_whole(self) -> bool:
        """Whether every layer stays where it is in its model, and every operand is one model.

        Then the models themselves are the operands. (Whether slices end where the models end is
        checked when the models are open.)
        """
        return (
            all(
                self._is_straight([self.base_of(part) for part in module.slices])
                and self._models_are_straight(module)
                for module in self.modules
            )
            and self._same_everywhere()
        )

    def _models_are_straight(self, module: Module) -> bool:
        several = [self.models_of(part) for part in module.slices]
        if len({len(each) for each in several}) > 1:
            return False
        return all(map(self._is_straight, map(list, zip(*several))))

    @staticmethod
    def _is_straight(sources: list[Source | None]) -> bool:
        """Whether the sources of one operand in successive slices are one model from layer 0 on."""
        if len({source and source.model for source in sources}) > 1:
            return False
        reached = 0
        for source in sources:
            if source is None or source.layers is None:
                continue
            if source.layers[0] != reached:
                return False
            reached = source.layers[1]
        return True

    def _same_everywhere(self) -> bool:
        """Whether every module gives the same models in the same order."""
        firsts = [module.slices[0] for module in self.modules]
        named = [
            [source.model for source in (self.base_of(part), *self.models_of(part)) if source]
            for part in firsts
        ]
        return all(each == named[0] for each in named)

    def renamed(self, names: Mapping[str, str]) -> Layout:
        """The layout with other references for its models.

        Args:
            names: by reference, the one to write instead.
        """

        def of_source(source: Source) -> Source:
            return replace(source, model=names.get(source.model, source.model))

        def of_slice(part: Slice) -> Slice:
            base = None if part.base is None else names.get(part.base, part.base)
            return replace(part, base=base, sources=tuple(map(of_source, part.sources)))

        modules = (replace(m, slices=tuple(map(of_slice, m.slices))) for m in self.modules)
        return replace(self, modules=tuple(modules))
