"""`uvmerge eval ccci`: Java transfer code from typed context, compiled, tested and compared.

The flow: holes → packs and prompts → answers, each kept as soon as it is there → code that fits the
hole → judge and metrics → samples. docs/ccci.md tells what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from ..errors import UsageError, counted
from ..hub import endpoint
from ..output.places import Reference
from .asking import UNRECORDED, checked_out, identity, opened
from .asking_settings import CcciSettings
from .kept import Kept, write_results
from .scored import CcciEvaluation
from .settings import shows

if TYPE_CHECKING:
    from ..engine.progress import Progress
    from ..tasks.ccci.benchmark import Task
    from ..tasks.ccci.task import Infilling, Prompt

FIXED = ("gold", "empty", "rules")
_UNRECORDED = (*UNRECORDED, "limit", "no_sandbox")


@dataclass(frozen=True)
class Question:
    """One hole as it is asked.

    Attributes:
        doc_id: its place in the benchmark.
        fixed: what a completer without a model answers; None where a model is asked.
        key: hash of the prompt.
    """

    doc_id: int
    task: Task
    prompt: Prompt
    fixed: str | None
    key: str

    def seed(self, seed: int) -> int:
        """The seed of the answer, which depends on the hole and the seed of the run alone."""
        return xxhash.xxh3_64_intdigest(f"{seed} {self.task.hole.id}".encode()) & 0x7FFFFFFF


@dataclass
class Answers(Kept):
    """The answers so far.

    Attributes:
        of: by the hole's id and the hash of its prompt.
    """

    of: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    name = "attempts.jsonl"

    def add(self, question: Question, answer: str, seed: int) -> None:
        """Keep one more answer."""
        line = {
            "id": question.task.hole.id, "doc_id": question.doc_id, "prompt_hash": question.key,
            "seed": seed, "answer": answer,
        }  # fmt: skip
        self.write(line)
        self.take(line)

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line for each answer."""
        yield from self.of.values()

    def take(self, line: Mapping[str, Any]) -> None:
        """Take the answer of a line."""
        if all(isinstance(line.get(key), str) for key in ("id", "prompt_hash", "answer")):
            self.of[line["id"], line["prompt_hash"]] = dict(line)

    def answer(self, question: Question) -> str | None:
        """The answer to a question, if it is there."""
        found = self.of.get((question.task.hole.id, question.key))
        return None if found is None else str(found["answer"])


@shows(CcciSettings, watched=False)
def evaluate_ccci(
    completer: Reference, *, without: Iterable[str] = (), out: Reference | None = None,
    quiet: bool = True, **settings: Any,
) -> CcciEvaluation:  # fmt: skip
    """Complete the holes of the benchmark, and judge what comes of it.

    With `out`, every answer is written at once, and the same call resumes where it was stopped. Answers
    are compiled and run behind the walls that docs/ccci.md describes; where these cannot be built,
    nothing is run, and Build Pass is left out.

    Args:
        completer: `gold`, `empty`, `rules`, a checkpoint folder, a Hub id, or the base URL of an
            OpenAI-compatible endpoint.
        without: kinds of context to leave out.
        out: the folder for `attempts.jsonl`, `samples.jsonl` and `results.json`.
        quiet: print no progress.
        settings: as in docs/options.md.

    Raises:
        InputRefused: the model cannot be run, or `out` holds something else.
        RunFailed: the endpoint or the model fails; with `out`, the same call resumes.
        UsageError: a setting makes no sense, or a package of the extra `ccci` is missing.
    """
    from ..engine.progress import Progress
    from ..tasks.ccci.metrics import need_packages

    started, progress = time.monotonic(), Progress(quiet=quiet)
    chosen, name = CcciSettings.read(settings), str(completer)
    need_packages()
    kinds = sorted({without} if isinstance(without, str) else set(without))
    target = None if out is None else checked_out(out, [] if name in FIXED else [completer])
    about, folder = ({"completer": name}, Path()) if name in FIXED else identity(name, chosen)
    questions = _questions(name, folder, chosen, kinds)
    recorded = {k: v for k, v in asdict(chosen).items() if k not in _UNRECORDED}
    recorded["without"] = kinds
    answers = Answers()
    with ExitStack() as stack:
        root = None
        if target is not None:
            head = {"eval": "ccci", "version": 1, "model": about, **recorded}
            root = stack.enter_context(answers.kept_in(target, head))
        asked = _ask(answers, questions, name, folder, chosen, progress)
        samples, measured = _judged(answers, questions, chosen, progress)
        seconds = time.monotonic() - started
        done = CcciEvaluation(about, recorded, samples, *measured, asked, seconds, target)
        if root is not None:
            results = {k: v for k, v in done.as_data().items() if k not in ("asked", "out")}
            write_results(root, samples, results)
    return done


def _questions(
    name: str, folder: Path, settings: CcciSettings, without: Sequence[str]
) -> list[Question]:
    """Every hole with its prompt, and its answer where no model is asked."""
    from ..tasks.ccci import complete_by_rules
    from ..tasks.ccci.benchmark import asked, tasks

    style = _style(name, folder, settings.style)
    questions = []
    for doc_id, task in enumerate(tasks()[: settings.limit]):
        pack, prompt = asked(task.hole, without, settings.budget, settings.depth, style)
        fixed = {"gold": task.hole.gold, "empty": ""}.get(name)
        if name == "rules":
            fixed = complete_by_rules(pack, prompt)
        key = xxhash.xxh3_128_hexdigest(f"{prompt.style}\n{prompt.text}".encode())
        questions.append(Question(doc_id, task, prompt, fixed, key))
    return questions


def _style(name: str, folder: Path, style: str) -> str | Infilling:
    """The style of all prompts."""
    if name in FIXED or endpoint.is_address(name):
        if style not in ("auto", "instruct"):
            raise UsageError("--style", f"{style} is for a local model", "Leave it out.")
        return "instruct"
    if style in ("instruct", "plain"):
        return style
    from ..models.load import load_tokenizer
    from ..tasks.ccci import infilling

    tokenizer = load_tokenizer(folder)
    tokens = infilling(tokenizer.get_vocab())
    if tokens is not None:
        return tokens
    if style == "infill":
        do = "Leave --style out."
        raise UsageError("--style", "this tokenizer has no tokens for infilling", do)
    return "instruct" if tokenizer.chat_template else "plain"


def _ask(
    answers: Answers, questions: Sequence[Question], name: str, folder: Path,
    settings: CcciSettings, progress: Progress,
) -> int:  # fmt: skip
    """Ask what has no answer yet; returns how much that was."""
    pending = [each for each in questions if answers.answer(each) is None]
    for question in pending:
        if question.fixed is not None:
            answers.add(question, question.fixed, 0)
    if not pending or pending[0].fixed is not None:
        return len(pending)
    progress.say(f"asking {counted(len(pending), 'hole')}")
    chats: list[Any] = [
        [{"role": "user", "content": each.prompt.text}]
        if each.prompt.style == "instruct" else each.prompt.text
        for each in pending
    ]  # fmt: skip
    seeds = [each.seed(settings.seed) for each in pending]
    with opened(name, folder, settings) as answering:
        for number, answer in answering.answers(
            chats, seeds, max_tokens=settings.max_tokens, temperature=settings.temperature
        ):
            answers.add(pending[number], answer, seeds[number])
    return len(pending)


def _judged(
    answers: Answers, questions: Sequence[Question], settings: CcciSettings, progress: Progress
) -> tuple[list[dict[str, Any]], tuple[dict[str, str], str | None]]:
    """A row for each hole; of each metric that is missing, why; and the sandbox that tests ran in."""
    from ..tasks.ccci import judge, scoring

    told = [(each.task, answers.answer(each) or "") for each in questions]
    tools, missing = judge.available(settings.no_sandbox), scoring.missing_metrics()
    if isinstance(tools, str):
        return scoring.scored(told, None), ({**missing, "build_pass": tools}, None)
    progress.say(f"testing {counted(len(questions), 'answer')}")
    return scoring.scored(told, tools), (missing, tools[1])
