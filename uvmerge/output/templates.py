"""The chat template of an output: written out, by name, or that of most models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from ..checkpoint.bounded import parse_json
from ..checkpoint.folder import Checkpoint
from ..errors import InputRefused
from .manifest import to_bytes
from .sidefiles import SideFile, Sides

TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
_KEY = "chat_template"
CHATML = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# The formats as their models were trained on; of Alpaca without its opening sentence, as in chats.
LLAMA3 = """\
{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>

{{ message['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}\
<|start_header_id|>assistant<|end_header_id|>

{{ '' }}{% endif %}"""
ALPACA = """\
{% set heads = {'user': '### Instruction:\\n', 'assistant': '### Response:\\n'} %}\
{% for message in messages %}{{ heads.get(message['role'], '') }}{{ message['content'] | trim }}

{% endfor %}{% if add_generation_prompt %}{{ heads['assistant'] }}{% endif %}"""
_NAMED = {"chatml": CHATML, "llama3": LLAMA3, "alpaca": ALPACA, "auto": ""}


def with_chat_template(sides: Sides, wanted: str, models: Iterable[Checkpoint]) -> Sides:
    """The side files with another chat template.

    Args:
        wanted: `auto` for the template that most models have, a known name, or a template.
        models: the checkpoints of the run.

    Raises:
        InputRefused: `auto`, and no model has a template.
    """
    text = _NAMED.get(wanted, wanted) or _usual(models)
    kept = []
    for side in sides.files:
        if side.name == TOKENIZER_CONFIG:
            content = parse_json(side.read(), TOKENIZER_CONFIG, "it")
            if content.pop(_KEY, None) is not None:
                side = SideFile.of(TOKENIZER_CONFIG, to_bytes(content))
        if side.name != TEMPLATE:
            kept.append(side)
    return replace(sides, files=(SideFile.of(TEMPLATE, text.encode()), *kept))


def _usual(models: Iterable[Checkpoint]) -> str:
    """The template that most models have; of several, the first."""
    found = Counter(text for model in models if (text := _template(model)))
    if not found:
        what = "chat_template is auto, and no model has a template"
        raise InputRefused("chat_template", what, "Write chatml, or the template itself.")
    return found.most_common(1)[0][0]


def _template(model: Checkpoint) -> str:
    names = model.side_names()
    if TEMPLATE in names:
        return model.side_bytes(TEMPLATE).decode(errors="replace")
    if TOKENIZER_CONFIG not in names:
        return ""
    found = parse_json(model.side_bytes(TOKENIZER_CONFIG), TOKENIZER_CONFIG, "it").get(_KEY)
    return found if isinstance(found, str) else ""
