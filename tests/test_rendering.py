"""Chat templates: as transformers renders them, and stopped where they would not end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import transformers

import uvmerge
from uvmerge import UsageError
from uvmerge.models import rendering
from uvmerge.models.prompts import Prompt, token_ids
from uvmerge.models.rendering import TemplateFailed, rendered

BASE = Path(uvmerge.__file__).parent / "demo" / "data" / "base"
CHAT = [{"role": "system", "content": "Ω <b>"}, {"role": "user", "content": "ten J"}]
ANSWERED = [*CHAT, {"role": "assistant", "content": "10\n"}]
TEMPLATE = """{{ bos_token }}{% for message in messages %}
    {% if loop.index > 9 %}{% break %}{% endif %}
<|{{ message.role }}|>{{ message.content | trim }}{{ message | tojson }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def test_texts_are_those_of_the_tokenizer() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(BASE)
    tokenizer.bos_token, tokenizer.chat_template = "<eos>", TEMPLATE
    found = rendered(TEMPLATE, [CHAT, ANSWERED], tokenizer.special_tokens_map)
    assert found == [
        tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True),
        tokenizer.apply_chat_template(ANSWERED, tokenize=False),
    ]
    assert "Ω <b>" in found[0] and found[0].startswith("<eos>")


@pytest.mark.parametrize("template", [ENDLESS, "{{ 10 ** (10 ** 9) }}"], ids=["loops", "a number"])
def test_a_template_without_end_is_stopped(template: str) -> None:
    started = time.monotonic()
    with pytest.raises(TemplateFailed, match="it does not end within 3 s"):
        rendered(template, [CHAT], {})
    assert time.monotonic() - started < rendering.START_S / 2


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{{ 'a' * 10 ** 10 }}", "it needs more than 2 GiB of memory"),
        ("{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}", "it makes 9,899,901 characters"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__'"),
        ("{{ raise_exception('no\x1b') }}", r"no\\x1b"),
        ("{% for %}", "Expected an expression"),
        ("{% include '/etc/passwd' %}", "no loader for this environment specified"),
    ],
)
def test_a_template_that_fails_says_why(template: str, what: str) -> None:
    with pytest.raises(TemplateFailed, match=what) as failed:
        rendered(template, [CHAT], {})
    assert failed.value.index == 0


def test_the_prompt_that_a_template_fails_on_is_named(tmp_path: Path) -> None:
    template = "{% if messages | length > 2 %}" + ENDLESS + "{% endif %}{{ messages[1].content }}"
    folder = tmp_path / "base"
    tokenizer = transformers.AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    chats = [Prompt(f"p:{i}", tuple(chat)) for i, chat in enumerate((CHAT, "ten", CHAT, ANSWERED))]
    chats[1] = Prompt("p:1", "ten J")
    assert token_ids([folder], chats[:3]) == [token_ids([BASE], chats[1:2])[0]] * 3
    with pytest.raises(UsageError, match="p:3: the base's chat template fails on it: it does not"):
        token_ids([folder], chats)
