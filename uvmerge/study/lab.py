"""The lab: pairs of small models by regime and seed, each trained once and kept in `OUT/pairs`.

A pair belongs to one process at a time, by the lock of its journal, so that several processes work
on one study. A checkpoint is trained beside its place and renamed: it is whole or not there.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from .. import demo
from ..demo import sums
from ..errors import RunFailed
from ..models.load import load_model
from .journal import DONE, Journal, Key, read
from .kinds import KINDS, Kind
from .machine import described, versions
from .sizes import Sizes
from .stage import Measured

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from ..demo.train import Course, Schedule

FORMAT = 2
PAIRS, JOURNAL, NOTES = "pairs", "journal.jsonl", "notes.json"
MACHINE, CHECKPOINT = "machine", "checkpoint"  # in a journal in the place of the stage


@dataclass(frozen=True)
class Lab:
    """A folder of pairs.

    Attributes:
        out: the folder of the study.
        sizes: of what is measured.
    """

    out: Path
    sizes: Sizes

    def folder(self, regime: str, seed: int) -> Path:
        """Where everything of a pair lies."""
        return self.out / PAIRS / f"{regime}-{seed}"

    def journal(self, regime: str, seed: int) -> Path:
        """The journal of a pair."""
        return self.folder(regime, seed) / JOURNAL

    @cached_property
    def sized(self) -> dict[str, Any]:
        """What must be the same for measurements to stand in one study."""
        return {"uvmerge_study": FORMAT, **self.sizes.as_data()}

    @cached_property
    def head(self) -> dict[str, Any]:
        """What must be the same for measurements to stand in the journal of one pair."""
        return {**self.sized, **versions()}

    def entries(self, regime: str, seed: int) -> dict[Key, dict[str, Any]]:
        """The entries of the journal of a pair, on whichever machine they were measured.

        Raises:
            InputRefused: it was measured with other sizes.
        """
        return read(self.journal(regime, seed), self.sized)

    @contextmanager
    def opened(self, regime: str, seed: int, stage: str) -> Iterator[Pair]:
        """A pair, held by this process alone inside the block.

        Raises:
            Locked: another process works on it.
            InputRefused: it was measured with other sizes or versions.
        """
        import torch

        with Journal.opened(self.journal(regime, seed), self.head) as journal:
            here = described()
            journal.once(MACHINE, " ".join(here.values()), lambda: here)
            before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
            torch.set_num_threads(1)
            torch.use_deterministic_algorithms(True)
            try:
                yield Pair(regime, seed, self.folder(regime, seed), self.sizes, stage, journal)
            finally:
                torch.set_num_threads(before[0])
                torch.use_deterministic_algorithms(before[1])


@dataclass(frozen=True)
class Pair:
    """A base, what was trained from it, and the journal of what was measured on them.

    Attributes:
        regime: what the base knows, or another kind: a key of `KINDS`.
        seed: of its weights and of the order of its data, counted from the first of its kind.
        folder: holds its checkpoints, by name.
        stage: the stage that measures now.
    """

    regime: str
    seed: int
    folder: Path
    sizes: Sizes
    stage: str
    journal: Journal

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of a measurement of this stage, made if it is not in the journal yet."""
        return self.journal.once(self.stage, key, make)

    def checkpoint(self, name: str, make: Callable[[], tuple[Any, dict[str, Any]]]) -> Path:
        """The folder of a checkpoint, stored in bfloat16; trained now if it is not there yet.

        Args:
            name: of the folder.
            make: returns the model, and JSON-able notes of its training for `notes`.
        """
        folder = self.folder / name
        if not folder.is_dir():
            model, notes = make()
            beside = folder.with_name(f"{name}.new")
            shutil.rmtree(beside, ignore_errors=True)
            save(model, self.tokenizer, beside)
            (beside / NOTES).write_text(json.dumps(notes, allow_nan=False) + "\n")
            self._refuse_other_weights(name, beside)
            beside.rename(folder)
        return folder

    def _refuse_other_weights(self, name: str, folder: Path) -> None:
        """Refuse a checkpoint that was trained again, as where only the journal was kept, to others."""
        ours = xxhash.xxh3_64_hexdigest((folder / "model.safetensors").read_bytes())
        if self.journal.once(CHECKPOINT, name, lambda: ours) != ours:
            raise RunFailed(
                self.folder / name,
                "was trained again to other weights than those that were measured",
                f"Remove {self.folder}; the same command measures this pair anew.",
            )

    def notes(self, name: str) -> dict[str, Any]:
        """What `make` noted of the training of a checkpoint that is there."""
        found: dict[str, Any] = json.loads((self.folder / name / NOTES).read_bytes())
        return found

    @property
    def base(self) -> Path:
        """The base, trained on the rules by the shares of the regime; of seed 0 that of the demo."""
        return self.checkpoint(
            "base", lambda: (self._embedded(0) or self.trained_base(self.schedule), {})
        )

    @property
    def finetuned(self) -> Path:
        """The base, trained further on one rule as the demo does; of seed 0 that of the demo."""
        return self.checkpoint("finetuned", lambda: (self._embedded(1) or self._tuned(), {}))

    @property
    def kind(self) -> Kind:
        """The task, the size of the models and their training."""
        return KINDS[self.regime]

    @cached_property
    def schedule(self) -> Schedule:
        """How base and fine-tuned checkpoint are trained."""
        return self.kind.schedule(self.seed, self.sizes.quick)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of all checkpoints of the pair."""
        from ..demo.train import build_tokenizer

        return build_tokenizer(self.kind.module.vocabulary())

    def course(self, rate: float) -> Course:
        """A fine-tuning on the one rule in the sizes of the study.

        Args:
            rate: the peak rate, as a share of that of the study.
        """
        from ..demo.train import Course

        sizes, seed = self.sizes, self.schedule.finetuning.seed
        hands = {sums.IN_DOMAIN: sizes.batch}
        return Course(hands, sizes.steps, rate * sizes.rate, seed)

    def _embedded(self, place: int) -> LlamaForCausalLM | None:
        """The base (0) or the fine-tuned checkpoint (1) of the demo, if this is its pair."""
        if self.seed != 0 or self.regime not in demo.PAIRS:
            return None
        return load(demo.pair(self.regime)[place])

    def trained_base(self, schedule: Schedule) -> LlamaForCausalLM:
        """A base of the kind of this pair, trained by a schedule."""
        import torch

        from ..demo.train import build_model

        torch.manual_seed(schedule.seed)
        model = build_model(self.tokenizer, self.kind.width)
        self._fit(model, schedule.base)
        return model

    def _tuned(self) -> LlamaForCausalLM:
        model = load(self.base)
        self._fit(model, self.schedule.finetuning)
        return model

    def _fit(self, model: LlamaForCausalLM, course: Course) -> None:
        from ..demo.train import fit

        task = self.kind.module
        dealer = None if task is sums else task.Dealer(self.tokenizer, course.seed)
        fit(model, self.tokenizer, course, dealer=dealer)

    def scores(
        self, model: LlamaForCausalLM | Path, *, split: str = "report", hands: int = 0
    ) -> dict[str, Any]:
        """Loss and accuracy in domain, and mean accuracy under the other rules, on held-out hands.

        `halves` are the same scores on each half of the hands.

        Args:
            split: which half of the held-out hands.
            hands: how many under each rule; by default those of the study.
        """
        dealt = self.hands(split, hands)
        return self.answered(model, dealt).scores()

    def hands(self, split: str = "report", count: int = 0) -> list[Any]:
        """The held-out hands that are asked; arguments as of `scores`."""
        dealt: list[Any] = self.kind.module.deal(count or self.sizes.hands, HANDS_SEED, split)
        return dealt

    def answered(self, model: LlamaForCausalLM | Path, hands: list[Any]) -> Answered:
        """What a model answers to hands."""
        asked = load(model) if isinstance(model, Path) else model
        return answered(asked, self.tokenizer, hands, self.kind.module)


HANDS_SEED = 1927
_BATCH = 300  # questions in one forward pass


def measured(regime: str, seed: int, stage: str, entries: Mapping[Any, Any]) -> Measured:
    """What a stage measured on a pair, from the entries of its journal."""
    values = {k: entry["value"] for (of, k), entry in entries.items() if of == stage and k != DONE}
    return Measured(regime, seed, values)


def load(folder: Path) -> LlamaForCausalLM:
    """A checkpoint of the lab in float32, with the attention that training uses."""
    import torch

    model: Any = load_model(folder, dtype=torch.float32, causal=True).model
    model.set_attn_implementation("sdpa")
    return model


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a complete checkpoint in bfloat16; the model itself is left rounded to bfloat16."""
    import torch

    with redirect_stderr(io.StringIO()):  # the bar of a file that takes no time
        model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Answered:
    """What a model answered to hands: of each rule, that of the fine-tuning first.

    Attributes:
        losses: cross entropy of the right answer, rules × hands.
        right: whether it was the likeliest token of all, rules × hands, bool.
    """

    losses: Any
    right: Any

    def scores(self) -> dict[str, Any]:
        """Loss and accuracy in domain, mean accuracy under the other rules; and of both `halves`."""
        middle = self.right.shape[1] // 2
        parts = (slice(0, middle), slice(middle, None))
        return {**self._of(slice(None)), "halves": [self._of(part) for part in parts]}

    def digits(self) -> str:
        """A hexadecimal digit for each hand, whose bit i says whether rule i was answered right."""
        return "".join(f"{sum(b << i for i, b in enumerate(r)):x}" for r in self.right.T.tolist())

    def _of(self, part: slice) -> dict[str, float]:
        shares = self.right[:, part].double().mean(dim=1).tolist()
        return {
            "loss": self.losses[0, part].mean().item(),
            "in_domain": shares[0],
            "out_of_domain": sum(shares[1:]) / len(shares[1:]),
        }


def answered(model: Any, tokenizer: Any, hands: list[Any], task: Any = sums) -> Answered:
    """What a model answers to hands under every rule of a task."""
    import torch

    rules = (task.IN_DOMAIN, *task.OUT_OF_DOMAIN)
    found = [_answered(model, tokenizer, rule, hands, task) for rule in rules]
    losses, right = (torch.stack(each) for each in zip(*found, strict=True))
    return Answered(losses, right)


def in_domain(model: Any, tokenizer: Any, hands: list[sums.Hand]) -> tuple[float, float]:
    """Mean loss and accuracy under the rule of the fine-tuning."""
    losses, right = _answered(model, tokenizer, sums.IN_DOMAIN, hands, sums)
    return losses.mean().item(), right.double().mean().item()


def _answered(
    model: Any, tokenizer: Any, rule: str, hands: list[Any], task: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each hand the cross entropy of the answer, and whether it is the likeliest token."""
    import torch

    from ..demo.evaluator import tensors

    questions, answers = tensors(tokenizer, rule, hands, task)
    was_training = model.training
    model.train(False)
    parts: list[torch.Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(hands), _BATCH):
            asked = questions[start : start + _BATCH]
            parts.append(model(input_ids=asked, use_cache=False, logits_to_keep=1).logits[:, -1])
    model.train(was_training)
    logits = torch.cat(parts)
    losses = torch.nn.functional.cross_entropy(logits, answers, reduction="none")
    return losses, logits.argmax(-1) == answers
