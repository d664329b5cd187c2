"""How models answer: exact where nothing changed, right where it did, and clear about what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest
import torch
import transformers
import zoo
from safetensors.torch import load_file, save_file

import uvmerge
from uvmerge import InputRefused, UsageError
from uvmerge.demo import pair
from uvmerge.models import behaviour, prompts as prompts_module
from uvmerge.models.behaviour import behaviours
from uvmerge.models.prompts import Prompt, read_prompts

BASE, FINETUNED = pair()
VOCABULARY = 78  # words of the task and three more
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}<eos>{% endif %}"


def words(count: int, start: int = 3) -> str:
    """A text of so many of the demo tokenizer's words."""
    vocabulary = json.loads((BASE / "tokenizer.json").read_text())["model"]["vocab"]
    return " ".join(sorted(vocabulary, key=vocabulary.get)[start : start + count])


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(f"prompts.jsonl:{i}", text) for i, text in enumerate(texts, 1)]


TEXTS = prompts(words(12), words(7, 9), words(1, 20), words(20, 15))


def lines(tmp_path: Path, *rows: str | bytes, name: str = "prompts.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(b"\n".join(r if isinstance(r, bytes) else r.encode() for r in rows))
    return path


def changed(tmp_path: Path, file: str, change: dict[str, object], source: Path = BASE) -> Path:
    """A copy of a demo checkpoint with other values in one of its JSON files."""
    folder = shutil.copytree(source, tmp_path / "changed")
    data = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(data | change))
    return folder


def test_every_kind_of_line_is_read_and_blank_ones_are_not(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "b", "name": "x"}, {"role": "assistant", "content": "c"}]
    rows = [b'\xef\xbb\xbf{"prompt": "a", "answer": 3}', "", json.dumps({"messages": chat})]
    found = read_prompts(lines(tmp_path, *rows, "  ", '{"text": "d\\nd"}\r', '"e"', ""))
    messages = ({"role": "user", "content": "b"}, {"role": "assistant", "content": "c"})
    assert [astuple(prompt) for prompt in found] == [
        ("prompts.jsonl:1", "a"),
        ("prompts.jsonl:3", messages),
        ("prompts.jsonl:5", "d\nd"),
        ("prompts.jsonl:6", "e"),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"prompt": "a"', "is not JSON: Expecting ',' delimiter"),
        ("[" * 100_000, "is not JSON: is nested too deeply"),
        ("9" * 5000, "is not JSON: Exceeds the limit"),
        (b'"\xff"', "is not JSON: 'utf-8' codec can't decode byte 0xff"),
        ('{"question": "a"}', "has none of prompt, text, messages"),
        ('{"prompt": "a", "text": "b"}', "has prompt and text"),
        ('{"prompt": null}', "a prompt, a role and a content must be text"),
        ("3", "a prompt, a role and a content must be text"),
        ('{"messages": []}', "messages must be a list of messages"),
        ('{"messages": ["a"]}', "messages must be a list of messages"),
        ('{"messages": [{"role": "user"}]}', "a prompt, a role and a content must be text"),
        ('"\\ud800"', "has half of a surrogate pair"),
    ],
)  # fmt: skip
def test_a_line_that_holds_no_prompt_is_named(tmp_path: Path, line: str | bytes, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_prompts(lines(tmp_path, '"fine"', "", line))
    assert str(refused.value).startswith(f"prompts.jsonl:3: {what}")
    assert refused.value.do and refused.value.exit_code == 2


def test_a_file_that_holds_no_prompts_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(UsageError) as refused:
            read_prompts(path)
        return str(refused.value)

    assert "there is no such file of prompts" in refusal(tmp_path / "none")
    assert "is a folder" in refusal(tmp_path)
    assert "has no prompts\n  Write {" in refusal(lines(tmp_path, "", " "))
    path = lines(tmp_path, *['"a"'] * 4, name="\x1b[31m.jsonl")
    monkeypatch.setattr(prompts_module, "LIMIT_PROMPTS", 3)
    assert refusal(path).startswith("\\x1b[31m.jsonl: has more than 3 prompts")
    monkeypatch.setattr(prompts_module, "LIMIT_BYTES", 2)
    assert "is larger than" in refusal(path)


def test_a_model_answers_exactly_as_itself() -> None:
    (found,) = behaviours(BASE, [BASE], TEXTS)
    assert (found.prompts, found.tokens) == (4, 40)
    assert found.kl == 0 and found.kl_error == 0 and found.entropy == found.base_entropy > 0
    assert found.overlap == found.agreement == 1 and found.js == 0
    assert found.margin == found.base_margin and 0 < found.margin < 1
    assert all(each.share == 1 for each in found.overlap_curve)


def test_every_figure_is_that_of_the_definition() -> None:
    (found,) = behaviours(BASE, [FINETUNED], TEXTS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(BASE)
    models = [zoo.load(folder)[0].float() for folder in (BASE, FINETUNED)]
    kl, rows = [], []
    for prompt in TEXTS:
        ids = torch.tensor([tokenizer(prompt.content)["input_ids"]])
        with torch.no_grad():
            logits = [model(input_ids=ids).logits[0].double() for model in models]
        p, q = (torch.softmax(x, -1) for x in logits)
        kl.append((p * (p / q).log()).sum(-1))
        for a, b in zip(p, q):
            tops = [set(x.topk(10).indices.tolist()) for x in (a, b)]
            entropies = [float(-(x * x.log()).sum()) for x in (a, b)]
            overlap = len(tops[0] & tops[1]) / 10
            m = (a + b) / 2
            js = sum(float((x * (x / m).log()).sum()) for x in (a, b)) / 2
            margins = [float(-x.topk(2).values.diff()) for x in (a, b)]
            curve = [
                len(set(a.topk(k).indices.tolist()) & set(b.topk(k).indices.tolist())) / k
                for k in (1, 2, 5, 10, 20, 50)
            ]
            same = float(a.argmax() == b.argmax())
            rows.append([*entropies, overlap, same, js, *margins, *curve])
    means = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    mean = float(torch.cat(kl).mean())
    sizes = [len(x) for x in kl]
    spread = sum(float((x - mean).sum()) ** 2 for x in kl)
    assert found.kl == pytest.approx(mean, rel=1e-5) and mean > 1e-3
    assert found.kl_error == pytest.approx((spread * 4 / 3) ** 0.5 / sum(sizes), rel=1e-4)
    given = [found.base_entropy, found.entropy, found.overlap, found.agreement, found.js]
    given += [found.base_margin, found.margin, *(each.share for each in found.overlap_curve)]
    assert given == pytest.approx(means, rel=1e-5)
    assert [(each.k, each.chance) for each in found.overlap_curve] == [
        (k, k / VOCABULARY) for k in (1, 2, 5, 10, 20, 50)
    ]


def test_results_repeat_to_the_bit_and_do_not_depend_on_the_company() -> None:
    first = behaviours(BASE, [FINETUNED, BASE], TEXTS)
    assert first == behaviours(BASE, [FINETUNED, BASE], TEXTS)
    assert first[:1] == behaviours(BASE, [FINETUNED], TEXTS)


def test_one_prompt_has_no_standard_error_and_one_token_has_a_distribution() -> None:
    (found,) = behaviours(BASE, [FINETUNED], prompts(words(1)))
    assert (found.prompts, found.tokens, found.kl_error) == (1, 1, None)
    assert 0 < found.kl < float("inf")


def test_long_prompts_are_cut_where_asked_and_where_the_models_end() -> None:
    long = prompts(" ".join([words(20)] * 5))
    assert behaviours(BASE, [FINETUNED], long)[0].tokens == 32
    cut = behaviours(BASE, [FINETUNED], long, most_tokens=5)
    assert cut == behaviours(BASE, [FINETUNED], prompts(words(5)))


def test_a_shift_of_all_logits_changes_nothing() -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = logits.flip(0)
    plain = list(behaviour._compared(logits, other))
    shifted = list(behaviour._compared(logits + 3.0, other - 100.0))
    assert plain == pytest.approx(shifted, rel=1e-9) and plain[0] > 1


def test_impossible_tokens_count_nothing() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    kl, base_entropy, *_ = behaviour._compared(logits, logits)
    assert kl == 0 and base_entropy == pytest.approx(0.6931471805599453)
    assert next(behaviour._compared(torch.zeros(1, 3), logits)) == float("inf")
    apart = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    js, *margins = list(behaviour._compared(*apart))[5:8]
    assert js == pytest.approx(math.log(2)) and margins == [1, 1]


def test_messages_are_rendered_by_the_template_of_the_base(tmp_path: Path) -> None:
    base = changed(tmp_path, "tokenizer_config.json", {"chat_template": TEMPLATE})
    user = {"role": "user", "content": words(4)}
    answer = {"role": "assistant", "content": words(3)}
    asked = behaviours(base, [FINETUNED], [Prompt("p:1", (user,))])
    assert asked == behaviours(base, [FINETUNED], prompts(words(4) + " <eos>"))
    answered = behaviours(base, [FINETUNED], [Prompt("p:1", (user, answer))])
    assert answered == behaviours(base, [FINETUNED], prompts(f"{words(4)} {words(3)}"))


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (None, "has messages, and the base's tokenizer has no chat template"),
        ("{{ raise_exception('roles must\x1b alternate') }}", "fails on it: roles must\\x1b alternate"),
        ("{{ ''.__class__.__mro__ }}", "fails on it: access to attribute '__class__'"),
    ],
)  # fmt: skip
def test_messages_without_a_template_that_takes_them_are_refused(
    tmp_path: Path, template: str | None, what: str
) -> None:
    base = changed(tmp_path, "tokenizer_config.json", {"chat_template": template})
    with pytest.raises(UsageError) as refused:
        behaviours(base, [FINETUNED], [Prompt("p:7", ({"role": "user", "content": "a"},))])
    assert str(refused.value).startswith("p:7: ") and what in str(refused.value)


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match=r"jsonl:2: gives no tokens"):
        behaviours(BASE, [FINETUNED], prompts(words(2), " "))
    with pytest.raises(UsageError, match="there are none"):
        behaviours(BASE, [FINETUNED], [])


def no_tokenizer(tmp_path: Path) -> Path:
    ignore = shutil.ignore_patterns("tokenizer.json")
    return shutil.copytree(BASE, tmp_path / "bare", ignore=ignore)


def broken_tokenizer(tmp_path: Path) -> Path:
    folder = shutil.copytree(BASE, tmp_path / "broken")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def tokenizer_of_its_own(tmp_path: Path) -> Path:
    code = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    folder = changed(tmp_path, "tokenizer_config.json", code)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    return folder


def other_tokenizer(tmp_path: Path) -> Path:
    folder = shutil.copytree(BASE, tmp_path / "other")
    data = json.loads((folder / "tokenizer.json").read_text())
    ids = data["model"]["vocab"]
    first, second = words(2).split()
    ids[first], ids[second] = ids[second], ids[first]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


def with_vocabulary(tmp_path: Path, rows: int) -> Path:
    folder = changed(tmp_path, "config.json", {"vocab_size": rows})
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        table = torch.zeros(rows, 128, dtype=torch.bfloat16)
        table[: min(rows, VOCABULARY)] = tensors[name][:rows]
        tensors[name] = table
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def without_weights(tmp_path: Path) -> Path:
    folder = shutil.copytree(BASE, tmp_path / "less")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_tokenizer(folder: Path) -> Path:
    """`folder`, with the tokenizer of the demo."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BASE / name, folder)
    return folder


def encoder(tmp_path: Path) -> Path:
    return with_tokenizer(zoo.make("bert", tmp_path / "bert"))


def encoder_decoder(tmp_path: Path) -> Path:
    sizes = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 16,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": VOCABULARY,
    }
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    model.save_pretrained(tmp_path / "t5")
    return with_tokenizer(tmp_path / "t5")


def of_size(hidden: int) -> Callable[[Path], Path]:
    return lambda tmp_path: changed(tmp_path, "config.json", {"hidden_size": hidden}, FINETUNED)


def of_class(name: object) -> Callable[[Path], Path]:
    return lambda tmp_path: changed(tmp_path, "config.json", {"architectures": name})


REFUSALS: list[tuple[Callable[[Path], Path], str]] = [
    (no_tokenizer, "has no tokenizer"),
    (broken_tokenizer, "transformers cannot load its tokenizer"),
    (tokenizer_of_its_own, "transformers cannot load its tokenizer"),
    (other_tokenizer, "its tokenizer gives other token ids than the base's for prompts.jsonl:1"),
    (
        lambda tmp_path: with_vocabulary(tmp_path, 80),
        "its vocabulary has 80 entries, the base's 78",
    ),
    (without_weights, "has no weights for model.norm.weight"),
    (encoder, "its model class BertForMaskedLM is not a causal language model"),
    (encoder_decoder, "its model class T5ForConditionalGeneration is not a causal language model"),
    (of_class(["Own\x1b[31mForCausalLM"]), "class Own\\x1b[31mForCausalLM is not in transformers"),
    (of_class(["pipeline"]), "its model class pipeline is not in transformers"),
    (of_class([]), "its config.json names no model class"),
    (of_size(10**7), "parameters, its files hold"),
]


@pytest.mark.parametrize(("plant", "what"), REFUSALS)
def test_a_checkpoint_that_cannot_be_compared_is_refused(
    tmp_path: Path, plant: Callable[[Path], Path], what: str
) -> None:
    folder = plant(tmp_path)
    with pytest.raises(InputRefused) as refused:
        behaviours(BASE, [FINETUNED, folder], TEXTS)
    assert str(refused.value.where) == str(folder) and what in str(refused.value)
    assert refused.value.do
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("family", ["gpt2", "llama_tied", "qwen3_moe", "gpt_oss", "gemma3_vision"])
def test_other_families_run_as_well(tmp_path: Path, family: str) -> None:
    base, finetuned = map(with_tokenizer, zoo.pair(family, tmp_path))
    same, other = behaviours(base, [base, finetuned], TEXTS)
    assert same.kl == 0 and same.agreement == 1
    assert 0 < other.kl < 10 and other.kl_error is not None


def test_a_tokenizer_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    small = with_vocabulary(tmp_path, 10)
    with pytest.raises(InputRefused, match=r"gives the id 3\d, its vocabulary has 10 entries"):
        behaviours(small, [small], TEXTS)


def test_a_model_that_gives_nan_is_named(tmp_path: Path) -> None:
    folder = shutil.copytree(BASE, tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(uvmerge.RunFailed, match="a forward pass gives NaN or Inf"):
        behaviours(BASE, [folder], TEXTS)
