"""The data of a plan: ranges, blocks and steps that say what every output byte will be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..checkpoint import header
from ..checkpoint.anatomy import Place, View
from ..checkpoint.roles import BASE, mirrored
from ..errors import counted
from ..recipe.recipe import Recipe
from ..recipe.tokenizer import rule_as_data
from ..text import html_table, inert, safe, size, table, two_lines
from .effort import effort, whole_working_set, working_set
from .emission import Emission, Target
from .layout import OutputFile
from .rows import change_rows, resolved_options


@dataclass(frozen=True, slots=True)
class Range:
    """A range of bytes of an input.

    Attributes:
        checkpoint: role of the checkpoint.
        file: name of the weight file.
        offset: start of the range in the file, in bytes.
        size_bytes: length of the range.
        dtype: dtype of the values, as safetensors spells it.
    """

    checkpoint: str
    file: str
    offset: int
    size_bytes: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Block:
    """One matrix of the output, or one tensor of another shape, and what is computed for it.

    Attributes:
        operands: (role, where the role's values are); the output mirrors the first operand.
        start: index of the operand that the chain starts from; None where the chain's first step
            makes a tensor of operands alone.
        chain: indices of the recipe's steps that change the matrix, in order.
        ranks: the k of each step in `chain`; None where values decide it, or the step has none.
        options: the options of each step in `chain`, as they are for this tensor.
        is_whole: whether an operation of the chain needs all of a tensor of any shape at once.
        decomposes: whether such an operation decomposes it, if it is a matrix.
    """

    operands: tuple[tuple[str, View], ...]
    start: int | None
    chain: tuple[int, ...]
    ranks: tuple[int | None, ...]
    options: tuple[Mapping[str, Any], ...]
    is_whole: bool = False
    decomposes: bool = False

    @property
    def own(self) -> str:
        """The role of the checkpoint that the output mirrors."""
        return self.operands[0][0]

    @property
    def view(self) -> View:
        """The matrix of the output that the block makes."""
        return self.operands[0][1]

    @property
    def working_set(self) -> int:
        """Estimated memory of the edit, in bytes."""
        if self.is_whole:
            return whole_working_set(self.view.shape, len(self.operands), self.decomposes)
        return working_set(self.view.shape, len(self.operands))

    @property
    def start_role(self) -> str | None:
        return None if self.start is None else self.operands[self.start][0]


@dataclass(frozen=True, slots=True)
class Step:
    """One contiguous stretch of the output: a whole tensor, or one expert of a fused tensor.

    Attributes:
        tensor: name of the output tensor.
        file, offset, size_bytes, dtype: where the stretch goes (in bytes) and how it is stored.
        elements: shape of the stretch as it is stored.
        place: where the tensor stands in the model.
        copy: the input bytes to copy, converted where the dtype differs; None for an edit.
        blocks: what to compute for an edit; empty for a copy.
        against: of an output that is an adapter, the role whose values the edit is added to.
        target: where the factors of the edit go; None where an adapter has no place for them.
    """

    tensor: str
    file: str
    offset: int
    size_bytes: int
    dtype: str
    elements: tuple[int, ...]
    place: Place
    copy: Range | None
    blocks: tuple[Block, ...] = ()
    against: str | None = None
    target: Target | None = None

    def __repr__(self) -> str:
        where = f"{size(self.size_bytes)} of {self.dtype} at byte {self.offset:,} of {self.file}"
        return two_lines("Step", f"{self.action} {self.tensor}", where)

    @property
    def action(self) -> str:
        """`copy`, `convert` (a copy in another dtype) or `edit`."""
        if self.copy is None:
            return "edit"
        return "copy" if self.copy.dtype == self.dtype else "convert"

    @property
    def inputs(self) -> int:
        """Number of checkpoints that the step reads."""
        return max((len(block.operands) for block in self.blocks), default=1)

    @property
    def bytes_in(self) -> int:
        """Bytes that the step reads."""
        if self.against is not None:
            return self.inputs * header.size_bytes(self.dtype, self.elements)
        return self.size_bytes if self.copy else self.inputs * self.size_bytes

    @property
    def is_compared(self) -> bool:
        """Whether tensors are only compared, for an adapter that has no place for them."""
        computes = any(block.chain for block in self.blocks)
        return self.against is not None and self.target is None and not computes

    @property
    def matrix_bytes(self) -> int:
        """Estimated working set of the edit on the CPU, in bytes."""
        if self.is_compared:
            return self.bytes_in
        found = (block.working_set for block in self.blocks)
        return max(found, default=0)

    @property
    def result_bytes(self) -> int:
        """Memory in bytes of one result while it is made: as it is stored, and its terms."""
        terms = sum(
            16 * sum(block.view.shape) * max((k or 0 for k in block.ranks), default=0)
            for block in self.blocks
            if len(block.view.shape) == 2
        )
        return self.size_bytes + terms

    @property
    def work(self) -> float:
        """Effort in arbitrary units, for the progress bar and for ordering."""
        spent = (effort(b.view.shape, len(b.operands), b.ranks) for b in self.blocks)
        return self.size_bytes * 1e-3 + sum(spent)


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        recipe: what was asked for.
        inputs: the identity of each checkpoint (see `Checkpoint.identity`), by role.
        files: the weight files of the output.
        steps: what makes each stretch of the output, in output order.
        index: a new index where the mirrored index does not fit the output, else None.
        notes: what the user should know, as sentences.
        emission: how the edit is written as an adapter; None where the output is a checkpoint.
    """

    recipe: Recipe
    inputs: dict[str, Any]
    files: tuple[OutputFile, ...]
    steps: tuple[Step, ...]
    index: dict[str, Any] | None
    notes: tuple[str, ...]
    emission: Emission | None = None

    def __repr__(self) -> str:
        return two_lines("Plan", self._asked(), f"{self._counted()}; print() gives the table")

    def __str__(self) -> str:
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join(
            [inert(self._asked()), self._counted(), *map(inert, notes), self.as_table()]
        )

    def _repr_html_(self) -> str:
        """The table of what will be changed, for a notebook."""
        return f"<p><code>{safe(self._asked())}</code>: {self._counted()}</p>{html_table(*self.change_rows())}"

    def _asked(self) -> str:
        """The steps of the recipe, and the checkpoints, in a line."""
        return f"{self.recipe} on {', '.join(self.inputs)}"

    def _counted(self) -> str:
        counts = self.counts()
        if self.emission:
            kind = counted(counts["edited"], "matrix")
            return f"factors of {kind}; at most {size(self.bytes_out)} to write"
        edited, reset = counted(counts["edited"], self.edited_kind), counts["reset"]
        others = f"{reset:,} reset to {self.reset_to}, {counts['copied']:,} copied"
        return f"{edited} edited, {others}; {size(self.bytes_out)} to write"

    @property
    def own(self) -> str:
        """The role of the checkpoint that the output mirrors (see `roles.mirrored`)."""
        return mirrored(self.inputs)

    @property
    def edits(self) -> list[Step]:
        return [step for step in self.steps if step.copy is None]

    @property
    def taken(self) -> list[Step]:
        """Steps that copy from another checkpoint than the mirrored one: reset tensors."""
        return [step for step in self.steps if step.copy and step.copy.checkpoint != self.own]

    @property
    def reset(self) -> list[str]:
        """Names of the tensors that are reset, as a whole or in some of their experts."""
        return list(dict.fromkeys(step.tensor for step in self.taken))

    @property
    def reset_to(self) -> str:
        """Where the tensors in `taken` come from, in words."""
        others = [role for role in self.inputs if role != self.own]
        return BASE if others in ([], [BASE]) else "another input"

    @property
    def changes(self) -> list[Step]:
        """Steps whose output may differ from the mirrored checkpoint in more than the dtype."""
        own = self.own
        return [step for step in self.steps if step.copy is None or step.copy.checkpoint != own]

    @property
    def bytes_out(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def bytes_in(self) -> int:
        """Bytes read from all inputs."""
        return sum(step.bytes_in for step in self.steps)

    @property
    def working_set_bytes(self) -> int:
        """Estimated memory of the largest edit, in bytes."""
        return max((step.matrix_bytes for step in self.steps), default=0)

    @property
    def needs_torch(self) -> bool:
        """Whether anything is computed or converted, rather than copied."""
        return any(step.action != "copy" for step in self.steps)

    @property
    def digest(self) -> str:
        """Identifies the plan: what is done to which inputs, and into which layout."""
        layout = [(file.name, file.digest) for file in self.files]
        asked: list[Any] = [self.recipe.asked, self.inputs, layout]
        asked += [self.recipe.layer_map] if self.recipe.layer_map else []
        asked += [self.emission.as_data()] if self.emission else []
        asked += [rule_as_data(self.recipe.tokenizer)] if self.recipe.tokenizer else []
        asked += [self.recipe.mixture] if self.recipe.mixture else []
        material = json.dumps(asked, sort_keys=True)
        return hashlib.sha256(material.encode()).hexdigest()[:16]

    def as_data(self) -> dict[str, Any]:
        """The plan as data that JSON can hold."""
        return {
            "recipe": self.recipe.as_data(),
            **({"adapter": self.emission.as_data()} if self.emission else {}),
            "inputs": self.inputs,
            "files": {file.name: file.size_bytes for file in self.files},
            "counts": self.counts(),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "working_set_bytes": self.working_set_bytes,
            "edits": {
                block.view.label: {
                    "shape": list(block.view.shape),
                    "steps": list(block.chain),
                    "k": list(block.ranks),
                    **resolved_options(self.recipe, block),
                }
                for step in self.edits
                for block in step.blocks
            },
            "reset": self.reset,
            "notes": list(self.notes),
        }

    def as_table(self) -> str:
        """A table of what will be changed; a line is one name in all layers, with all experts."""
        return table(*self.change_rows(), right="k count")

    def change_rows(self) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """The head and the rows of `as_table`."""
        return change_rows(self)

    @property
    def edited_kind(self) -> str:
        """What to call that which is edited: `matrix`, or `tensor` where not all of it is one."""
        shapes = (block.view.shape for step in self.edits for block in step.blocks)
        return "matrix" if all(len(shape) == 2 for shape in shapes) else "tensor"

    def streams(self, step: Step) -> bool:
        """Whether an edit works element by element, on values that are contiguous in every input.

        Such an edit is computed in small pieces; any other holds its matrices as a whole.
        """
        return self._is_of_vectors(step) and not step.blocks[0].is_whole

    def passes(self, step: Step) -> bool:
        """Whether an edit needs its operands as a whole, but only as vectors that are contiguous."""
        return self._is_of_vectors(step) and step.blocks[0].is_whole

    def _is_of_vectors(self, step: Step) -> bool:
        if len(step.blocks) != 1 or step.against is not None:
            return False
        (block,) = step.blocks
        operations = [self.recipe.steps[i].operation for i in block.chain]
        together = all(not v.transposed and v.part is None for _, v in block.operands)
        return together and not any(o.matrices_only for o in operations)

    def counts(self) -> dict[str, int]:
        """Numbers of edited matrices, of reset tensors, and of tensors in which nothing changes."""
        changed = {step.tensor for step in self.changes}
        if self.emission:
            factors = sum(step.target is not None for step in self.steps)
            return {"edited": factors, "reset": 0, "copied": 0, "compared": len(changed) - factors}
        return {
            "edited": sum(len(step.blocks) for step in self.edits),
            "reset": len(self.reset),
            "copied": len({step.tensor for step in self.steps} - changed),
        }
