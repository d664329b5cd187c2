"""Turns the blocks of a tensor into the step that makes its factors, for an output that is an adapter.

Weights of linear maps and embeddings get factors. Every other tensor of the checkpoint has no place in
an adapter: its step only finds out how much of the edit is lost without it. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from ..checkpoint.alignment import Subject
from ..checkpoint.anatomy import View, anatomy_of
from ..checkpoint.folder import Checkpoint
from ..checkpoint.header import FLOATS
from ..checkpoint.roles import spelled
from ..checkpoint.ties import is_tied, token_embeddings
from ..errors import InputRefused, listed
from .emission import FACTORS, Emission, Target
from .layout import OutputFile
from .steps import Block, Step

_WEIGHT = ".weight"
_PARTS = {
    "text_config",
    "vision_config",
    "audio_config",
    "encoder",
    "decoder",
}  # of composite models
_LEAST_SLOT_BYTES = 8  # so that every step has a place of its own


class Factored:
    """Makes the steps of an adapter, and lays out the file in which factors are staged.

    Args:
        own: role of the checkpoint whose tensors the edit changes.
        checkpoints: every checkpoint of the run, by role.
        tied: groups of names of that checkpoint that hold one tensor.
    """

    def __init__(
        self,
        emission: Emission,
        own: str,
        checkpoints: Mapping[str, Checkpoint],
        tied: Sequence[Sequence[str]],
    ) -> None:
        self.emission, self.own = emission, own
        self.label = checkpoints[emission.against].label
        anatomy = self._anatomy = anatomy_of(checkpoints[own])
        tables = {tensor.name for tensor in token_embeddings(anatomy)}
        # An adapter would change one of the two uses of a tied tensor, or merge its change twice.
        self._tied: Collection[str] = {*(tables if is_tied(anatomy) else ()), *chain(*tied)}
        self._size_bytes = 0
        self._lacking: list[str] = []
        self._fits = False

    def copy(self, subject: Subject) -> list[Step]:
        """The step of a tensor that no step of the recipe changes."""
        blocks = [Block(((self.own, view),), 0, (), (), ()) for view in subject.views]
        return self._steps(subject, blocks, has_place=not self.emission.selected_only)

    def edit(self, subject: Subject, blocks: Sequence[Block]) -> list[Step]:
        """The step of a tensor that the recipe changes; none where it takes all from `against`."""
        return self._steps(subject, blocks, has_place=True)

    def _steps(self, subject: Subject, blocks: Sequence[Block], *, has_place: bool) -> list[Step]:
        tensor, against = subject.tensor, self.emission.against
        if all(not block.chain and block.start_role == against for block in blocks):
            return []
        if tensor.dtype not in FLOATS or 0 in tensor.shape:
            return []
        views = self._views(subject)
        if views is None:
            self._lacking.append(tensor.name)
            return []
        target = self._target(subject, blocks) if has_place else None
        room = 0 if target is None else target.size_bytes(target.most, self.emission.dtype)
        offset, room = self._size_bytes, max(room, _LEAST_SLOT_BYTES)
        self._size_bytes += room
        self._fits |= target is not None
        step = Step(
            tensor.name, FACTORS, offset, room, tensor.dtype, tensor.shape, subject.place, None,
            tuple(map(self._with_operand, blocks, views)), against, target,
        )  # fmt: skip
        return [step]

    def files(self) -> tuple[OutputFile, ...]:
        """The file in which the factors are staged.

        Raises:
            InputRefused: nothing of the edit can be in an adapter, or a tensor has no counterpart.
        """
        if not self._fits:
            raise InputRefused(
                "--emit adapter", "the edit changes no weight of a linear map or embedding",
                "An adapter holds nothing else: write a checkpoint.",
            )  # fmt: skip
        if self._lacking and not self.emission.lossy:
            what = f"{listed(self._lacking, 'tensor')} have no counterpart in {self.label}"
            raise InputRefused(
                "--emit adapter", what, "Write a checkpoint; --lossy leaves them out."
            )
        return (OutputFile(FACTORS, b"", self._size_bytes),)

    @property
    def notes(self) -> list[str]:
        """What the user should know from headers, as sentences."""
        found = []
        if self._lacking:
            whose = spelled(self.emission.against)
            lacking = listed(self._lacking, "tensor")
            found.append(f"left out, without counterpart in {whose}: {lacking}")
        if _PARTS & self._anatomy.config.keys():
            found.append(
                "modules are named as in the checkpoint; where transformers renames them while it"
                " loads such a composite model, PEFT says that it does not find them"
            )
        return found

    def _with_operand(self, block: Block, view: View) -> Block:
        """The block with the values that the adapter is added to among its operands."""
        operands = {**dict(block.operands), self.emission.against: view}
        return replace(block, operands=tuple(operands.items()))

    def _views(self, subject: Subject) -> Sequence[View] | None:
        """Where the values are that the adapter is added to; None where there are none."""
        against = self.emission.against
        if against == self.own:
            return subject.views
        partner = subject.partners.get(against)
        if partner is None or partner.why:
            return None
        views = [view for view in partner.views if view is not None]
        alike = [view.shape for view in views] == [view.shape for view in subject.views]
        return views if alike else None

    def _target(self, subject: Subject, blocks: Sequence[Block]) -> Target | None:
        """The module that gets factors; None where an adapter has no place for them."""
        tensor, place = subject.tensor, subject.place
        if len(blocks) != 1 or not place.is_matrix or not tensor.name.endswith(_WEIGHT):
            return None
        (view,) = subject.views
        if view.expert is not None or place.module == "router" or tensor.name in self._tied:
            return None
        if (
            self._anatomy.expert_key(view) is not None
        ):  # loaded models hold experts as one parameter
            return None
        m, n = view.shape
        is_embedding = place.module == "embeddings"
        return Target(
            tensor.name.removesuffix(_WEIGHT), is_embedding, (n, m) if is_embedding else (m, n),
            self.emission.most(m, n), view.transposed,
        )  # fmt: skip
