"""Chat templates: as transformers renders them, with limits of length."""

from __future__ import annotations

import pytest
import transformers

from uvmerge.demo import pair
from uvmerge.models.rendering import TemplateFailed, chat_text

BASE = pair()[0]
CHAT = [{"role": "system", "content": "Ω <b>"}, {"role": "user", "content": "ten J"}]
ANSWERED = [*CHAT, {"role": "assistant", "content": "10\n"}]
TEMPLATE = """{{ bos_token }}{% for message in messages %}
    {% if loop.index > 9 %}{% break %}{% endif %}
<|{{ message.role }}|>{{ message.content | trim }}{{ message | tojson }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def test_texts_are_those_of_the_tokenizer() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(BASE)
    tokenizer.bos_token, tokenizer.chat_template = "<eos>", TEMPLATE
    found = [chat_text(TEMPLATE, chat, tokenizer.special_tokens_map) for chat in (CHAT, ANSWERED)]
    assert found == [
        tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True),
        tokenizer.apply_chat_template(ANSWERED, tokenize=False),
    ]
    assert "Ω <b>" in found[0] and found[0].startswith("<eos>")


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}", "it makes 9,899,901 characters"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__'"),
        ("{{ lipsum.__globals__['os'].getpid() }}", "is unsafe"),
        ("{{ '{0.__class__.__mro__}'.format(1) }}", "access to attribute '__class__'"),
        ("{{ raise_exception('no\x1b') }}", r"no\\x1b"),
        ("{% for %}", "Expected an expression"),
        ("{% include '/etc/passwd' %}", "no loader for this environment specified"),
        ("a" * (2**20 + 1), "it is longer than 1,048,576 characters"),
    ],
    ids=range(8),
)
def test_a_template_that_fails_says_why(template: str, what: str) -> None:
    with pytest.raises(TemplateFailed, match=what):
        chat_text(template, CHAT, {})
