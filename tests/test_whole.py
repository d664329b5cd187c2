"""An adapter where a model is run: `diff --kl`, `diff --hidden` and evaluations merge it for a while."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import adapters
import pytest
from byte_model import write_byte_model

import uvmerge
from uvmerge.errors import InputRefused
from uvmerge.output import disk

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")  # PEFT's
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base with a tokenizer, an adapter of it, and the two merged."""
    folder = tmp_path_factory.mktemp("whole")
    base = write_byte_model(folder / "base", chat_template=TEMPLATE)
    lora = adapters.make(base, folder / "lora", target_modules=["q_proj", "down_proj"], b_scale=0.3)
    uvmerge.merge_lora(base, lora, folder / "merged")
    return base, lora, folder / "merged"


def test_diff_runs_an_adapter_as_the_model_that_it_makes(
    trio: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, lora, merged = trio
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "one two"}) + "\n" + json.dumps({"prompt": "x"}))
    found = uvmerge.diff(base, lora, merged, kl=prompts, hidden=prompts)
    one, two = found.compared
    assert one.behaviour == two.behaviour and one.hidden == two.hidden
    assert one.behaviour is not None and one.behaviour.kl > 0
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_evaluation_asks_the_merged_model(trio: tuple[Path, Path, Path]) -> None:
    _, lora, merged = trio
    one, two = (
        uvmerge.evaluate_cards(model, hands=1, rule="id", attempts=1, max_tokens=8)
        for model in (lora, merged)
    )
    assert one.samples == two.samples and len(one.samples) == 1
    assert one.as_data()["tasks"] == two.as_data()["tasks"]


def test_a_full_disk_is_found_before_anything_is_merged(
    trio: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 100)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "one"}))
    with pytest.raises(InputRefused, match=r"the disk is .* bytes short"):
        uvmerge.diff(*trio[:2], kl=prompts)
