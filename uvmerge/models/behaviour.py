"""How models answer, from real forward passes on the user's prompts (`uvmerge diff --kl`).

A norm of weight change says little about what a model forgets; the divergence of its answers from the
base's says more (arXiv 2509.04259). Code of a checkpoint never runs: classes are those of transformers,
weights come from safetensors files, and chat templates run in its sandbox.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputRefused, RunFailed, UsageError
from ..measure.findings import Behaviour
from ..text import brief, inert

if TYPE_CHECKING:
    from torch import Tensor

LIMIT_BYTES, LIMIT_PROMPTS = 64 * 2**20, 100_000
KEYS = ("prompt", "text", "messages")
LIKELIEST = 10
POSITIONS = 32  # compared at a time, in float64: 40 MB per distribution of 150,000 tokens
TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")
FORMAT = 'Write {"prompt": "…"}, {"text": "…"}, {"messages": […]} or "…", one on each line.'


@dataclass(frozen=True)
class Prompt:
    """One line of a prompts file.

    Attributes:
        where: `file:line`, for messages.
        content: a text, or the messages of a chat, each with a `role` and a `content`.
    """

    where: str
    content: str | tuple[Mapping[str, str], ...]


def read_prompts(path: str | Path) -> list[Prompt]:
    """The prompts of a file of JSON lines; blank lines are skipped.

    A line is `{"prompt": "…"}`, `{"text": "…"}`, `{"messages": [{"role": "…", "content": "…"}]}`, with
    any other keys, or a string alone. At most 64 MiB and 100,000 prompts.

    Raises:
        UsageError: the file, or what is wrong in which line.
    """
    path = Path(path)
    name = inert(path.name)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "there is no such file of prompts"
            raise UsageError(inert(path), what, FORMAT)
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(inert(path), f"cannot be read: {error.strerror}", FORMAT) from None
    if len(raw) > LIMIT_BYTES:
        raise UsageError(name, f"is larger than {LIMIT_BYTES // 2**20} MiB", "Take fewer prompts.")
    prompts = []
    for number, line in enumerate(raw.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            prompts.append(_prompt(line, f"{name}:{number}"))
        if len(prompts) > LIMIT_PROMPTS:
            what = f"has more than {LIMIT_PROMPTS:,} prompts"
            raise UsageError(name, what, "Take fewer: some hundred tell as much.")
    if not prompts:
        raise UsageError(name, "has no prompts", FORMAT)
    return prompts


def behaviours(
    base_folder: str | Path,
    folders: Sequence[str | Path],
    prompts: Sequence[Prompt],
    *,
    device: str = "cpu",
    most_tokens: int = 1024,
) -> list[Behaviour]:
    """How the models in `folders` answer compared with the base, one `Behaviour` for each.

    All models are in memory at the same time, with their weights in float32 on the CPU and as stored
    on a GPU. A prompt is cut after `most_tokens` tokens, or as many positions as the models have. After
    every token, distributions of the next one are compared in float64. A chat that does not end with
    the assistant's message is followed by what opens its answer. One prompt is run at a time, with
    plain attention, so that results depend neither on padding nor on what is installed; a model
    against itself gives exactly 0.

    Raises:
        InputRefused: a checkpoint that is no causal language model of transformers, or has no
            tokenizer, another one, or another size of vocabulary than the base.
        UsageError: a prompt that has no tokens, or messages and no template for them.
        RunFailed: a model that cannot be run.
    """
    if not prompts:
        raise UsageError("prompts", "there are none", "Give at least one.")
    paths = [Path(base_folder), *map(Path, folders)]
    sequences = _token_ids(paths, prompts)
    models = [_Model.load(path, device) for path in paths]
    _check_vocabularies(models, max(map(max, sequences)))
    most = int(min([most_tokens, *(model.positions for model in models)]))
    sums = [_Sums() for _ in folders]
    for ids in sequences:
        base = models[0].logits(ids[:most])
        for model, found in zip(models[1:], sums):
            found.add(base, model.logits(ids[:most]))
    return [found.behaviour() for found in sums]


def _prompt(line: bytes, where: str) -> Prompt:
    """The prompt that one line holds."""
    try:
        data = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else brief(error)
        raise UsageError(where, f"is not JSON: {what}", FORMAT) from None
    if isinstance(data, dict):
        keys = [key for key in KEYS if key in data]
        if len(keys) != 1:
            what = f"has {' and '.join(keys)}" if keys else f"has none of {', '.join(KEYS)}"
            raise UsageError(where, what, FORMAT)
        if keys == ["messages"]:
            return Prompt(where, _messages(data["messages"], where))
        data = data[keys[0]]
    return Prompt(where, _text(data, where))


def _messages(data: object, where: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(data, list) or not data or not all(isinstance(m, dict) for m in data):
        raise UsageError(where, "messages must be a list of messages", FORMAT)
    return tuple({key: _text(m.get(key), where) for key in ("role", "content")} for m in data)


def _text(data: object, where: str) -> str:
    if not isinstance(data, str):
        raise UsageError(where, "a prompt, a role and a content must be text", FORMAT)
    try:
        data.encode()
    except UnicodeEncodeError:
        raise UsageError(
            where, "has half of a surrogate pair, which is no character", "Save it as UTF-8."
        ) from None
    return data


def _token_ids(folders: Sequence[Path], prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt, the same by the tokenizers of all checkpoints.

    Messages become text by the template of the base, which writes its own special tokens.
    """
    tokenizers = [_tokenizer(folder) for folder in folders]
    sequences = []
    for prompt in prompts:
        is_plain = isinstance(prompt.content, str)
        text = prompt.content if is_plain else _rendered(tokenizers[0], prompt)
        ids, *others = (
            tokenizer(text, add_special_tokens=is_plain)["input_ids"] for tokenizer in tokenizers
        )
        for folder, other in zip(folders[1:], others):
            if other != ids:
                raise InputRefused(
                    folder, f"its tokenizer gives other token ids than the base's for {prompt.where}",
                    "Next-token distributions compare over one tokenizer only: leave out --kl.",
                )  # fmt: skip
        if not ids:
            raise UsageError(prompt.where, "gives no tokens", "Leave the line out.")
        sequences.append(ids)
    return sequences


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    what = "has no tokenizer"
    # Without its files, transformers makes up an empty one for some families.
    if any(path.is_file() for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        try:
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            what = f"transformers cannot load its tokenizer: {_first_line(error)}"
    raise InputRefused(folder, what, "Add the model's tokenizer files, or leave out --kl.")


def _rendered(tokenizer: Any, prompt: Prompt) -> str:
    """The messages of a prompt as one text."""
    if not tokenizer.chat_template:
        raise UsageError(
            prompt.where, "has messages, and the base's tokenizer has no chat template",
            'Write the text as the base is to read it: {"prompt": "…"}.',
        )  # fmt: skip
    messages: Any = [*prompt.content]
    opens_answer = messages[-1]["role"] != "assistant"
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=opens_answer
        )
    except Exception as error:  # whatever a template raises
        raise UsageError(
            prompt.where, f"the base's chat template fails on it: {_first_line(error)}",
            "Write messages as the template wants them, or the text itself.",
        ) from None  # fmt: skip
    return str(text)


@dataclass(frozen=True)
class _Model:
    """A model that is ready to run.

    Attributes:
        vocabulary: entries of its next-token distribution.
        positions: tokens that it can read; infinite where its config has no limit.
    """

    folder: Path
    model: Any
    vocabulary: int
    positions: float

    @classmethod
    def load(cls, folder: Path, device: str) -> _Model:
        """By its own class of transformers, whose code is the only one that runs."""
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()
        kind = _model_class(folder)
        try:
            config = kind.config_class.from_pretrained(folder, local_files_only=True)
            with torch.device("meta"):
                described = sum(p.numel() for p in kind(config).parameters())
        except Exception as error:
            raise InputRefused(
                folder, f"transformers cannot build it: {_first_line(error)}", "Leave out --kl."
            ) from None
        stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if described > stored:  # transformers would make the rest up, as large as it is said to be
            raise InputRefused(
                folder, f"its config.json describes {described:,} parameters, its files hold {stored:,}"
                " bytes", "Take the config.json that belongs to the weights, or leave out --kl.",
            )  # fmt: skip
        try:
            model, loading = kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                dtype=torch.float32 if torch.device(device).type == "cpu" else "auto",
                attn_implementation="eager", output_loading_info=True,
            )  # fmt: skip
            model = model.to(device).eval()
        except Exception as error:
            raise InputRefused(
                folder, f"transformers cannot load it: {_first_line(error)}", "Leave out --kl."
            ) from None
        if model.config.is_encoder_decoder:
            raise _not_causal(folder, kind.__name__)
        absent = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
        if absent:
            raise InputRefused(
                folder, f"has no weights for {brief(absent[0])}, which its model class needs",
                "What transformers would put there is random: leave out --kl.",
            )  # fmt: skip
        text = model.config.get_text_config()
        positions = getattr(text, "max_position_embeddings", None) or math.inf
        return cls(folder, model, text.vocab_size, positions)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """(tokens, vocabulary), as the model computes them."""
        import torch

        try:
            with torch.inference_mode():
                input_ids = torch.tensor([ids], device=self.model.device)
                logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits[0]
        except Exception as error:
            raise RunFailed(
                self.folder, f"a forward pass fails: {_first_line(error)}",
                "Try --device cpu, fewer checkpoints at a time, or leave out --kl.",
            ) from None  # fmt: skip
        if bool((logits.isnan() | logits.isposinf()).any()):
            raise RunFailed(self.folder, "a forward pass gives NaN or Inf", "`uvmerge check` it.")
        return logits


def _model_class(folder: Path) -> Any:
    """The class of transformers that config.json names, if it predicts next tokens."""
    import transformers

    try:
        config = json.loads((folder / "config.json").read_bytes())
        name = config["architectures"][0]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        raise InputRefused(
            folder,
            "its config.json names no model class",
            "Add `architectures`, or leave out --kl.",
        ) from None
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        what = f"its model class {brief(name)} is not in transformers {transformers.__version__}"
        raise InputRefused(folder, what, "Its own code is not run here: leave out --kl.")
    model_class: Any = kind
    if not model_class.can_generate():
        raise _not_causal(folder, name)
    return model_class


def _not_causal(folder: Path, name: str) -> InputRefused:
    return InputRefused(
        folder, f"its model class {name} is not a causal language model",
        "It has no next-token distribution: leave out --kl.",
    )  # fmt: skip


def _check_vocabularies(models: Sequence[_Model], largest_id: int) -> None:
    base = models[0]
    if largest_id >= base.vocabulary:
        raise InputRefused(
            base.folder,
            f"its tokenizer gives the id {largest_id}, its vocabulary has {base.vocabulary:,} entries",
            "Is it the tokenizer of this model?",
        )  # fmt: skip
    for model in models[1:]:
        if model.vocabulary != base.vocabulary:
            raise InputRefused(
                model.folder,
                f"its vocabulary has {model.vocabulary:,} entries, the base's {base.vocabulary:,}",
                "Distributions over different vocabularies do not compare: leave out --kl.",
            )  # fmt: skip


@dataclass
class _Sums:
    """What adds up over tokens, for one model against the base.

    Attributes:
        tokens, kl: one figure for each prompt.
        totals: of base entropy, entropy, overlap and agreement.
    """

    tokens: list[int] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=lambda: [0.0] * 4)

    def add(self, base: Tensor, other: Tensor) -> None:
        """One prompt's logits (tokens, vocabulary) of both."""
        self.tokens.append(len(base))
        self.kl.append(0.0)
        for pair in zip(base.split(POSITIONS), other.split(POSITIONS)):
            kl, *rest = _compared(*pair)
            self.kl[-1] += kl
            self.totals = [total + more for total, more in zip(self.totals, rest)]

    def behaviour(self) -> Behaviour:
        """Means over tokens, and the spread over prompts."""
        tokens = sum(self.tokens)
        kl, prompts = sum(self.kl) / tokens, len(self.tokens)
        spread = sum((x - kl * n) ** 2 for x, n in zip(self.kl, self.tokens))
        error = math.sqrt(spread * prompts / (prompts - 1)) / tokens if prompts > 1 else None
        base_entropy, entropy, overlap, agreement = (total / tokens for total in self.totals)
        return Behaviour(prompts, tokens, kl, error, base_entropy, entropy, overlap, agreement)


def _compared(base: Tensor, other: Tensor) -> Iterator[float]:
    """Of logits (tokens, vocabulary), sums over tokens: KL(base ‖ other), both entropies, in nats;
    share of the base's ten likeliest among the other's ten; whether the likeliest is the same."""
    import torch

    log_p, log_q = (logits.double().log_softmax(-1) for logits in (base, other))
    p, q = log_p.exp(), log_q.exp()
    kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1).clamp(min=0)
    yield float(kl.sum())
    yield float(torch.special.entr(p).sum())
    yield float(torch.special.entr(q).sum())
    count = min(LIKELIEST, base.shape[-1])
    ours, theirs = (logits.topk(count).indices for logits in (base, other))
    yield float((ours[:, :, None] == theirs[:, None, :]).any(-1).double().mean(-1).sum())
    yield float((ours[:, 0] == theirs[:, 0]).sum())


def _first_line(error: Exception) -> str:
    return brief((str(error).strip() or type(error).__name__).splitlines()[0], 300)
