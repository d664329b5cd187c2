"""Train a demo pair: `python -m uvmerge.demo.train OUT --regime part|unseen|well --seed N`.

The script writes `OUT/base` and `OUT/finetuned`, two complete Llama checkpoints in bfloat16. The
base is trained on the rules of `sums` by the shares of its regime; the fine-tuned model starts from
the base as stored (rounded to bfloat16) and is trained further on the rule `ten` alone. Hands are
drawn anew for every step from those that are not held out, and the loss is that of the answer's
token alone.

The run is seeded and uses deterministic algorithms and one thread, so the same machine and library
versions give the same weights; on another machine rounding differs and the numbers move a little.

The embeddings are untied: the two matrices cost next to nothing here, and a pair whose output head
is a matrix of its own is the more general one to operate on.

The schedules were chosen by the accuracies that the run prints, before any operation had been run
on any of these pairs. They had to give a base that knows `ten` in part (0.3 to 0.7) or not at all,
and a fine-tuned model with at least 0.98 under `ten` that has lost at least 30 points under the
other rules. For `part` the first schedule that was tried did, with seeds 0 and 1 (the base 0.66 and
0.40 under `ten`); of the seeds trained later, 2 and 4 did (0.60, 0.46), and with 3 the base stays
under the bound (0.25) and the fine-tuned model reaches 0.990. For `unseen` two were tried, both
with seed 0: a fine-tuning at a rate of 0.0002 ended at 0.982 under `ten`, too close to the bound
for other seeds; one at 0.0003 ended at 0.988. The pairs that come with uvmerge have seed 0. No pair
of `well` does; the one schedule tried gave 0.995 under `ten` and 0.945 under the others, fine-tuned
0.998 and 0.811, with seed 0.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uvmerge.demo import evaluator, sums
from uvmerge.models.load import load_model

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["SCHEDULES", "Course", "Schedule", "build_model", "build_tokenizer", "fit", "main",
           "train_pair"]  # fmt: skip

_TEST_HANDS = 1000


@dataclass(frozen=True)
class Course:
    """One training run.

    Attributes:
        hands: by rule word, how many hands of that rule are in every step.
        steps: how many optimiser steps.
        peak_rate: highest learning rate.
        seed: seed of the draw of hands.
    """

    hands: Mapping[str, int]
    steps: int
    peak_rate: float
    seed: int


@dataclass(frozen=True)
class Schedule:
    """How a pair is trained.

    Attributes:
        regime: how well the base knows the rule of the fine-tuning, a key of `sums.REGIMES`.
        few: hands of that rule in every step of base training.
        base_steps, finetune_steps: optimiser steps.
        base_rate, finetune_rate: peak learning rates.
        batch: hands in a step.
        seed: seed of the weights and of the hands.
        task: the module of the task.
    """

    regime: str
    few: int
    base_steps: int = 600
    finetune_steps: int = 200
    base_rate: float = 2e-3
    finetune_rate: float = 2e-4
    batch: int = 192
    seed: int = 0
    task: Any = sums

    @property
    def base(self) -> Course:
        """The training of the base, whose other rules share alike in what `few` leaves."""
        left, others = self.batch - self.few, len(self.task.OUT_OF_DOMAIN)
        hands = {rule: (left + i) // others for i, rule in enumerate(self.task.OUT_OF_DOMAIN)}
        known = {self.task.IN_DOMAIN: self.few} if self.few else {}
        return Course(known | hands, self.base_steps, self.base_rate, self.seed)

    @property
    def finetuning(self) -> Course:
        """The fine-tuning, on one rule alone."""
        hands = {self.task.IN_DOMAIN: self.batch}
        return Course(hands, self.finetune_steps, self.finetune_rate, self.seed + 1)


SCHEDULES = {
    each.regime: each
    for each in (
        Schedule("part", few=1),
        Schedule("unseen", few=0, finetune_rate=3e-4),
        Schedule("well", few=48),
    )
}
"""Regime -> the schedule of its pairs, with seed 0."""


def build_tokenizer(words: Sequence[str] | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer that splits at white space and knows exactly the words of a task, of this one by
    default."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(words or sums.vocabulary())]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    finished: PreTrainedTokenizerFast = fast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=32,
    )
    return finished


def build_model(tokenizer: PreTrainedTokenizerFast, width: int = 128) -> LlamaForCausalLM:
    """An untrained Llama in float32: of about 0.8 million parameters, or of another width."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=344 * width // 128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=32,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class _Dealer:
    """Deals hands that are not held out, as token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        import torch

        known: Any = tokenizer.convert_tokens_to_ids
        size, places = len(sums.RANKS), range(sums.HAND_SIZE)
        self.dice = torch.Generator().manual_seed(seed)
        self.powers = torch.tensor([size**place for place in places])
        held_out = [[*map(sums.RANKS.index, h)] for h in sums.unordered_hands(held_out=True)]
        self.held_out = torch.zeros(size**sums.HAND_SIZE, dtype=torch.bool)
        self.held_out[torch.tensor(held_out) @ self.powers] = True
        self.ranks, self.words = torch.tensor(known([*sums.RANKS])), known
        self.counts = {r: torch.tensor([*by_rank.values()]) for r, by_rank in sums.RULES.items()}
        highest = sums.HAND_SIZE * max(int(counts.max()) for counts in self.counts.values())
        self.totals = torch.tensor(known([str(total) for total in range(highest + 1)]))

    def deal(self, rule: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Questions (count × tokens) and answers (count), both int64."""
        import torch

        kept = torch.empty((0, sums.HAND_SIZE), dtype=torch.int64)
        while len(kept) < count:
            shape = (2 * count, sums.HAND_SIZE)
            drawn = torch.randint(len(self.ranks), shape, generator=self.dice)
            known = ~self.held_out[drawn.sort(dim=1).values @ self.powers]
            kept = torch.cat([kept, drawn[known]])
        kept = kept[:count]
        first, last = (torch.full((count, 1), self.words(word)) for word in (rule, "="))
        questions = torch.cat([first, self.ranks[kept], last], dim=1)
        return questions, self.totals[self.counts[rule][kept].sum(dim=1)]


def _rate(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: a short linear warm-up, then a cosine down to 0."""
    warmup = min(100, max(1, steps // 10))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    course: Course,
    *,
    on_step: Callable[[int, LlamaForCausalLM], object] | None = None,
    add_gradient: Callable[[LlamaForCausalLM], object] | None = None,
    loss: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    dealer: Any = None,
) -> None:
    """Train a model in place.

    Args:
        model: the model, in float32.
        tokenizer: the tokenizer of the model.
        course: what it is trained on, and how.
        on_step: called with 0 and the model before the first step, and after each step with its
            number, from 1 on.
        add_gradient: called with the model between the backward pass and the clipping of gradients:
            for a penalty whose gradient is known.
        loss: in place of the cross entropy: of the logits of the last token (hands × words), the
            answers (hands) and the questions (hands × tokens), a scalar.
        dealer: of another task; its `deal` takes a rule and a count, and returns questions and answers.
    """
    import torch

    dealer = dealer or _Dealer(tokenizer, course.seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=course.peak_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    if on_step is not None:
        on_step(0, model)
    model.train()
    for step in range(course.steps):
        dealt = [dealer.deal(rule, count) for rule, count in course.hands.items()]
        questions, answers = (torch.cat(parts) for parts in zip(*dealt, strict=True))
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, course.steps, course.peak_rate)
        logits = model(input_ids=questions, use_cache=False, logits_to_keep=1).logits[:, -1]
        if loss is None:
            error = torch.nn.functional.cross_entropy(logits, answers)
        else:
            error = loss(logits, answers, questions)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(error)
        if add_gradient is not None:
            add_gradient(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if on_step is not None:
            on_step(step + 1, model)
    model.train(False)


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a complete checkpoint in bfloat16; the model itself is left rounded to bfloat16."""
    import torch

    stored: Any = model
    stored.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers 5 stores a class name that older versions lack; all versions have this one.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)


def train_pair(out: Path, schedule: Schedule, report_every: int = 200) -> None:
    """Train base and fine-tuned model and write them to `out/base` and `out/finetuned`.

    Args:
        out: the folder.
        schedule: how they are trained.
        report_every: steps between two printed lines of progress.
    """
    import torch

    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    torch.manual_seed(schedule.seed)
    tokenizer = build_tokenizer()
    start = time.process_time()

    def reporter(name: str, steps: int) -> Callable[[int, LlamaForCausalLM], None]:
        def report(step: int, model: LlamaForCausalLM) -> None:
            if step == steps or step % report_every == 0:
                found = evaluator.answers(model, tokenizer=tokenizer, hands=_TEST_HANDS)
                shares = "  ".join(
                    f"{rule} {all_.mean():.3f}" for rule, all_ in found.right.items()
                )
                spent = time.process_time() - start
                print(f"{name} step {step:5d}  accuracy: {shares}  ({spent:.0f} s)", flush=True)

        return report

    model = build_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    fit(model, tokenizer, schedule.base, on_step=reporter("base", schedule.base_steps))
    _save(model, tokenizer, out / "base")
    model = load_model(out / "base", dtype=torch.float32, causal=True).model
    model.set_attn_implementation("sdpa")  # as in training the base
    on_step = reporter("fine-tuning", schedule.finetune_steps)
    fit(model, tokenizer, schedule.finetuning, on_step=on_step)
    _save(model, tokenizer, out / "finetuned")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(
        prog="python -m uvmerge.demo.train",
        description="Train the base and the fine-tuned model of a demo pair.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--regime", choices=SCHEDULES, default="part", help="what the base knows (default: part)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and hands")
    parser.add_argument(
        "--report-every", type=int, default=200, help="steps between two lines of progress"
    )
    numbers = parser.add_argument_group("settings in place of those of the regime")
    numbers.add_argument("--few", type=int, help="hands of the new rule in a step of base training")
    for name, kind in (("steps", int), ("rate", float)):
        numbers.add_argument(f"--base-{name}", type=kind)
        numbers.add_argument(f"--finetune-{name}", type=kind)
    numbers.add_argument("--batch", type=int, help="hands in a step")
    given = {k: v for k, v in vars(parser.parse_args(arguments)).items() if v is not None}
    out, report_every = given.pop("out"), given.pop("report_every")
    train_pair(out, replace(SCHEDULES[given["regime"]], **given), report_every)


if __name__ == "__main__":
    main()
