"""Vocabularies of merges: tokens are aligned by string, rows are filled by rule, side files follow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dropped
import pytest
import torch
import zoo
from tokenizers import AddedToken, Tokenizer, decoders, models as kinds, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaForCausalLM

import uvmerge
from uvmerge.checkpoint.folder import Checkpoint
from uvmerge.checkpoint.tokenizer_json import Tokenizer as Parsed, extended
from uvmerge.checkpoint.vocabulary import Known, Named, differences, origins, united
from uvmerge.engine.settings import Control
from uvmerge.models.vocabularies import vocabulary_of

FOX = "the quick brown fox jumps over the lazy dog again and again, the dog sleeps"
ROWS = "merging models of language: rows of tokens, the heads and embeddings of models"
MEAN = """
def mean(*models: Operand, scale: Scale = 1.0) -> Edited:
    '''Average several models.'''
    total = models[0].tensor
    for model in models[1:]:
        total = total + model.tensor
    return scale * total / len(models)
"""
ARITHMETIC = """
def arithmetic(base: Operand, *models: Operand, scale: Scale = 1.0) -> Edited:
    '''Add the sum of several models' differences from the base.'''
    start = base.tensor
    return start + scale * sum(model.tensor - start for model in models)
"""
EMBED, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("operations") / "o"
    dropped.write(folder, "mean", MEAN)
    dropped.write(folder, "arithmetic", ARITHMETIC)
    return folder


@pytest.fixture(autouse=True)
def merges(operations: Path) -> Iterator[None]:
    with dropped.dropped(operations):
        yield


def words(*tokens: str) -> Tokenizer:
    """A tokenizer of whole words; those in angle brackets are added and special."""
    plain = [token for token in tokens if not token.startswith("<")]
    made = Tokenizer(kinds.WordLevel({t: i for i, t in enumerate(plain)}, unk_token=plain[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([AddedToken(t, special=True) for t in tokens if t.startswith("<")])
    return made


def bytewise(text: str, size: int, *added: str) -> Tokenizer:
    """A byte-level BPE tokenizer that was trained on a text."""
    made = Tokenizer(kinds.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [text],
        trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet),
    )
    made.add_special_tokens([AddedToken(each, special=True) for each in added])
    return made


def model(
    folder: Path, tokenizer: Tokenizer, *, seed: int = 0, padding: int = 0, tied: bool = False,
    dtype: torch.dtype = torch.float32, **config: Any,
) -> Path:  # fmt: skip
    """A Llama of one layer with a tokenizer; row i of its embeddings begins with 1000 · seed + i."""
    rows, make = tokenizer.get_vocab_size() + padding, torch.Generator().manual_seed(seed)
    shapes = {EMBED: (rows, 8), NORM: (8,), HEAD: (rows, 8)}
    shapes |= {f"model.layers.0.self_attn.{n}_proj.weight": (8, 8) for n in "qkvo"}
    shapes |= {f"model.layers.0.mlp.{n}_proj.weight": (12, 8) for n in ("gate", "up")}
    shapes |= {"model.layers.0.mlp.down_proj.weight": (8, 12)}
    shapes |= {f"model.layers.0.{n}_layernorm.weight": (8,) for n in ("input", "post_attention")}
    tensors = {name: torch.randn(shape, generator=make) for name, shape in shapes.items()}
    same = torch.Generator().manual_seed(0)  # models of one family: their layers are related
    tensors |= {n: torch.randn(s, generator=same) for n, s in shapes.items() if "layers" in n}
    tensors[EMBED][:, 0] = 1000 * seed + torch.arange(rows)
    if tied:
        del tensors[HEAD]
    folder.mkdir()
    zoo.write_safetensors(
        folder / zoo.SINGLE,
        {name: _spec(t.to(dtype)) for name, t in tensors.items()}, {"format": "pt"},
    )  # fmt: skip
    about = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1,
        "hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "vocab_size": rows,
        "tie_word_embeddings": tied, "bos_token_id": None, "pad_token_id": None,
        "eos_token_id": tokenizer.token_to_id("<eos>"), "torch_dtype": str(dtype)[6:],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(about | config))
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [about["eos_token_id"]], "temperature": 0.5})
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "of": seed})
    )
    return folder


def _spec(tensor: torch.Tensor) -> zoo.Spec:
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    return names[tensor.dtype], list(tensor.shape), tensor.view(torch.uint8).numpy().tobytes()


def firsts(out: Path, name: str = EMBED) -> list[float]:
    """The first number of each row."""
    return [float(value) for value in zoo.tensors(out)[name][:, 0]]


def config_of(out: Path, name: str = "config.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / name).read_text())
    return content


# --- rules, in numbers -------------------------------------------------------------------------


def test_a_missing_token_gets_the_only_row_else_the_base_s_else_the_mean_else_zeros() -> None:
    known = {
        "base": Known({"a": 0, "b": 1}, 2),
        "models[0]": Known({"b": 0, "c": 1, "d": 2}, 3),
        "models[1]": Known({"c": 4, "d": 9}, 5),  # d has no row: its id is beyond them
        "models[2]": Known({}, 5),
    }
    ids = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    found = origins(ids, known, {}, "base")
    mean = (("models[0]", 1), ("models[1]", 4))
    assert found["models[2]"] == [
        (("base", 0),), (("base", 1),), mean, (("models[0]", 2),), ()
    ]  # fmt: skip
    assert found["base"][2:] == [mean, (("models[0]", 2),), ()]
    assert found["models[0]"][1:3] == [(("models[0]", 0),), (("models[0]", 1),)]
    named = {"a": Named((("models[1]", 3),), False), "b": Named((), True)}
    found = origins(ids, known, named, "base")
    assert found["base"][:2] == [(("base", 0),), ()]  # its own row, unless forced
    assert found["models[0]"][:2] == [(("models[1]", 3),), ()]


def test_a_union_keeps_the_ids_of_the_first_and_appends_by_model_and_id() -> None:
    ids, came = united(
        {"x": {"b": 1, "a": 0}, "y": {"z": 0, "a": 1, "y": 2}, "w": {"w": 0, "z": 1}}
    )
    assert ids == {"a": 0, "b": 1, "z": 2, "y": 3, "w": 4}
    assert came == {"z": "y", "y": "y", "w": "w"}


def test_vocabularies_differ_where_an_id_means_two_tokens_and_not_where_one_has_more() -> None:
    assert not list(differences({"a": 0, "b": 1}, {"a": 0}))
    assert list(differences({"a": 0, "b": 1}, {"a": 1, "c": 2})) == ["a", "b"]
    assert list(differences({"x": 2}, {"a": 1, "c": 2})) == ["x"]


# --- the weights -------------------------------------------------------------------------------


def test_rows_are_aligned_by_token_and_padding_is_dropped(tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "dog", "<eos>"), seed=1, padding=2)
    b = model(tmp_path / "b", words("dog", "cat", "<eos>", "<im>"), seed=2)
    done = uvmerge.mean(a, b, tmp_path / "base", tokenizer="base")
    assert firsts(tmp_path / "base") == [1000, (1001 + 2000) / 2, (1002 + 2002) / 2]
    assert config_of(tmp_path / "base")["vocab_size"] == 3
    assert "models[1] lacks 1 of them, whose rows are filled" in done.plan.notes
    uvmerge.mean(a, b, tmp_path / "model", tokenizer=str(b))
    assert firsts(tmp_path / "model") == [1500.5, 2001, 1502, 2003]
    done = uvmerge.mean(a, b, tmp_path / "union", tokenizer="union")
    assert "embeddings by the rule for the vocabulary" in done.summary
    assert uvmerge.check(tmp_path / "union", against=a)["changed"] == 1
    assert firsts(tmp_path / "union") == [1000, 1500.5, 1502, 2001, 2003]
    ours, theirs = zoo.tensors(a)[HEAD], zoo.tensors(b)[HEAD]
    rows = [ours[0], (ours[1] + theirs[0]) / 2, (ours[2] + theirs[2]) / 2, theirs[1], theirs[3]]
    assert torch.allclose(zoo.tensors(tmp_path / "union")[HEAD], torch.stack(rows))


def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    a = model(tmp_path / "a", bytewise(FOX, 290, "<eos>"), seed=1)
    b = model(tmp_path / "b", bytewise(ROWS, 300, "<im>", "<eos>"), seed=2)
    with Checkpoint.open(a) as checkpoint:  # the library gives them in another order each time
        numbers = list(vocabulary_of(checkpoint).tokens.values())
    assert numbers == list(range(len(numbers)))
    uvmerge.mean(a, b, tmp_path / "one", tokenizer="union")
    control = Control()
    control.stop.set()
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.mean(a, b, tmp_path / "two", tokenizer="union", control=control)
    with pytest.raises(uvmerge.InputRefused, match="--overwrite"):
        uvmerge.mean(a, b, tmp_path / "two", tokenizer="base")  # another plan
    uvmerge.mean(a, b, tmp_path / "two", tokenizer="union")
    assert zoo.raw(tmp_path / "one") == zoo.raw(tmp_path / "two")
    assert uvmerge.mean(a, b, tmp_path / "two", tokenizer="union").was_there


def test_a_token_of_one_model_has_no_difference_from_the_base(tmp_path: Path) -> None:
    base = model(tmp_path / "b", words("the", "<eos>"), seed=1)
    ours = model(tmp_path / "m", words("the", "dog", "<eos>"), seed=2)
    uvmerge.arithmetic(base, ours, tmp_path / "out", tokenizer="union", scale=0.5)
    assert firsts(tmp_path / "out") == [1500, (1001 + 2002) / 2, 2001]


def test_rows_are_filled_up_with_the_mean_row(tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "dog", "<eos>"), seed=1)
    uvmerge.mean(a, tmp_path / "out", tokenizer="base", pad_to_multiple_of=4, scale=2.0)
    assert firsts(tmp_path / "out") == [2000, 2002, 2004, 2002]
    assert config_of(tmp_path / "out")["vocab_size"] == 4


def test_a_recipe_names_rows_of_tokens(tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "dog", "<eos>"), seed=1)
    b = model(tmp_path / "b", words("dog", "cat", "<eos>"), seed=2)
    recipe = f"""
uvmerge: 1
models: [{a}, {b}]
tokenizer:
  source: base
  tokens:
    dog: {{model: "{b}", force: true}}
    the: {{model: "{b}", token: cat}}
    "<new>": {{model: null}}
    cat:
steps: [mean]
"""
    (tmp_path / "r.yaml").write_text(recipe)
    uvmerge.run(tmp_path / "r.yaml", tmp_path / "out")
    assert firsts(tmp_path / "out") == [(1000 + 2001) / 2, 2000, 1502, 0, 2001]
    made = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert [made.token_to_id(t) for t in ("<new>", "cat")] == [3, 4]
    again = config_of(tmp_path / "out", "uvmerge.json")["recipe"]["tokenizer"]
    assert again["source"] == "models[0]" and again["tokens"]["dog"]["model"] == "models[1]"
    uvmerge.run(tmp_path / "out" / "uvmerge.json", tmp_path / "again", models=[a, b])
    assert zoo.raw(tmp_path / "again") == zoo.raw(tmp_path / "out")


def test_rows_of_another_dtype_are_rounded_once(tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "<eos>"), seed=1, dtype=torch.bfloat16)
    b = model(tmp_path / "b", words("dog", "<eos>"), seed=2)
    c = model(tmp_path / "c", words("dog", "<eos>"), seed=3)
    uvmerge.mean(a, b, c, tmp_path / "out", tokenizer="union", dtype="float32")
    low = torch.tensor((2000.0 + 3000) / 2).bfloat16().item()  # the row that a is given
    assert firsts(tmp_path / "out")[2] == pytest.approx((low + 2000 + 3000) / 3)


def test_the_bytes_do_not_hang_on_pieces_and_workers(tmp_path: Path) -> None:
    a = model(tmp_path / "a", bytewise(FOX, 290, "<eos>"), seed=1)
    b = model(tmp_path / "b", bytewise(ROWS, 300, "<im>", "<eos>"), seed=2, padding=3)
    uvmerge.mean(a, b, tmp_path / "one", tokenizer="union", pad_to_multiple_of=64, workers=1)
    uvmerge.mean(
        a, b, tmp_path / "two", tokenizer="union", pad_to_multiple_of=64, workers=2,
        max_shard_size=3000,
    )  # fmt: skip
    assert len(list((tmp_path / "two").glob("*.safetensors"))) > 2
    assert zoo.raw(tmp_path / "one") == zoo.raw(tmp_path / "two")
    assert uvmerge.check(tmp_path / "two", load=True)["loaded"]


# --- the side files ----------------------------------------------------------------------------


def test_a_union_encodes_and_decodes_every_token_of_both_parents(tmp_path: Path) -> None:
    parents = [bytewise(FOX, 290, "<eos>", "<x>"), bytewise(ROWS, 300, "<|im|>", "<eos>")]
    folders = [model(tmp_path / str(i), parent, seed=i) for i, parent in enumerate(parents)]
    out = tmp_path / "out"
    uvmerge.mean(*folders, out, tokenizer="union")
    made, loaded = AutoTokenizer.from_pretrained(out), LlamaForCausalLM.from_pretrained(out)
    assert len(made) == loaded.config.vocab_size == len(made.get_vocab())
    for parent in parents:
        for token, number in parent.get_vocab().items():
            ours = made.convert_tokens_to_ids(token)
            text = parent.decode([number], skip_special_tokens=False)
            assert made.decode([ours]) == text, token
            assert made.decode(made(text, add_special_tokens=False)["input_ids"]) == text, token
    # The first parent's merges go first; then those of the second are tried.
    assert made(FOX)["input_ids"] == parents[0].encode(FOX).ids
    assert len(made(ROWS)["input_ids"]) <= len(parents[1].encode(ROWS).ids) + 2
    assert loaded.generate(torch.tensor([[1, 2]]), max_new_tokens=2).shape == (1, 4)
    assert made.convert_tokens_to_ids("<eos>") == loaded.config.eos_token_id


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram"])
def test_a_union_of_other_kinds_keeps_ids_and_texts(kind: str) -> None:
    first, second = (trained(kind, text) for text in (FOX, ROWS))
    first.add_special_tokens(["<x>", "<im>"])
    second.add_special_tokens(["<y>", "<im>"])
    ids, came = united({"a": first.get_vocab(), "b": second.get_vocab()})
    parsed = {n: Parsed(n, json.loads(t.to_str())) for n, t in (("a", first), ("b", second))}
    made = Tokenizer.from_str(json.dumps(extended(parsed["a"], parsed, ids, came)))
    assert made.get_vocab() == ids
    for parent in (first, second):
        for token, number in parent.get_vocab().items():
            text = parent.decode([number], skip_special_tokens=False)
            assert made.decode([ids[token]], skip_special_tokens=False) == text


def trained(kind: str, text: str) -> Tokenizer:
    if kind == "WordPiece":
        made, trainer = Tokenizer(kinds.WordPiece(unk_token="?")), trainers.WordPieceTrainer
        made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        settings: dict[str, Any] = {}
    else:
        made, trainer = Tokenizer(kinds.Unigram()), trainers.UnigramTrainer
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        settings = {"unk_token": "?"}
    settings |= {"vocab_size": 60, "special_tokens": ["?"], "show_progress": False}
    made.train_from_iterator([text], trainer(**settings))
    return made


def test_the_chosen_model_gives_the_tokenizer_and_the_special_ids(tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "dog", "<eos>"), seed=1, sep_token_id=1)
    b = model(tmp_path / "b", words("dog", "<eos>"), seed=2)
    (a / "chat_template.jinja").write_text("a")
    (a / "vocab.json").write_text("{}")
    uvmerge.mean(a, b, tmp_path / "out", tokenizer="models[1]")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not names & {"chat_template.jinja", "vocab.json"}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (b / name).read_bytes()
    config = config_of(tmp_path / "out")
    assert (config["eos_token_id"], config["sep_token_id"], config["vocab_size"]) == (1, 0, 2)
    generation = config_of(tmp_path / "out", "generation_config.json")
    assert generation == {"eos_token_id": [1], "temperature": 0.5}


def test_a_head_that_one_model_ties_is_written_and_the_config_says_so(tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "<eos>"), seed=1, tied=True)
    b = model(tmp_path / "b", words("the", "<eos>"), seed=2)
    c = model(tmp_path / "c", words("the", "dog", "<eos>"), seed=3)
    uvmerge.mean(a, b, tmp_path / "out")
    uvmerge.mean(a, c, tmp_path / "union", tokenizer="union")
    start = zoo.tensors(a)[EMBED]
    made = zoo.tensors(tmp_path / "out")
    assert torch.allclose(made[HEAD], (start + zoo.tensors(b)[HEAD]) / 2)
    assert torch.allclose(made[EMBED], (start + zoo.tensors(b)[EMBED]) / 2)
    head = zoo.tensors(tmp_path / "union")[HEAD]
    assert torch.allclose(head[0], (start[0] + zoo.tensors(c)[HEAD][0]) / 2)
    for out in ("out", "union"):
        assert config_of(tmp_path / out)["tie_word_embeddings"] is False
        assert uvmerge.check(tmp_path / out, load=True, against=a)["loaded"]
    uvmerge.mean(b, a, tmp_path / "other")
    assert torch.allclose(zoo.tensors(tmp_path / "other")[HEAD], made[HEAD])


# --- refusals ----------------------------------------------------------------------------------


def test_vocabularies_that_differ_without_a_rule_are_refused(tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "dog", "<eos>"), seed=1, padding=1)
    b = model(tmp_path / "b", words("dog", "the", "cat", "<eos>"), seed=2)
    c = model(tmp_path / "c", words("the", "dog", "<eos>"), seed=3, padding=2)
    with pytest.raises(uvmerge.InputRefused, match=r"number 4 tokens.*3 tokens") as caught:
        uvmerge.mean(a, b, tmp_path / "out")
    assert "--tokenizer base, union, or one of the models" in str(caught.value)
    with pytest.raises(uvmerge.InputRefused, match=r"\[4, 8\] \(3 and 4 tokens\)"):
        uvmerge.mean(b, c, tmp_path / "out")
    with pytest.raises(uvmerge.InputRefused, match=r"differ: .*\[5, 8\] and .*\[4, 8\]"):
        uvmerge.mean(a, c, tmp_path / "out")
    assert any("are mixed" in n for n in uvmerge.mean(a, b, tmp_path / "o", force=True).plan.notes)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("unoin", "Did you mean 'union'?"),
        ("org/other", "is no model of this run"),
        ({"tokens": {"the": {"model": "models[0]", "token": "cat"}}}, "has no token 'cat'"),
        ({"tokens": {"the": {"model": "models[0]", "token": 3}}}, "has no token 3"),
        ({"tokens": {"the": {"token": "x"}}}, "names a token of no model"),
        ({"pad-to-multiple-of": 0}, "is no whole number from 1"),
        ({"sources": "union"}, "Did you mean 'source'?"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused(rule: Any, sentence: str, tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "dog", "<eos>"), seed=1)
    recipe = {"uvmerge": 1, "models": [str(a)], "tokenizer": rule, "steps": ["mean"]}
    with pytest.raises(uvmerge.UsageError) as caught:
        uvmerge.run(recipe, tmp_path / "out")
    assert sentence in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_tokenizers_of_two_kinds_are_not_united(tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "<eos>"), seed=1)
    b = model(tmp_path / "b", bytewise(FOX, 280, "<eos>"), seed=2)
    with pytest.raises(uvmerge.InputRefused, match="WordLevel in a, BPE in b"):
        uvmerge.mean(a, b, tmp_path / "out", tokenizer="union")
    (b / "tokenizer.json").write_text("{}")
    with pytest.raises(uvmerge.InputRefused, match="its tokenizer cannot be read"):
        uvmerge.mean(a, b, tmp_path / "out", tokenizer="union")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (b / name).unlink()
    with pytest.raises(uvmerge.InputRefused, match="has no tokenizer"):
        uvmerge.mean(a, b, tmp_path / "out", tokenizer="union")


def test_the_command_line_takes_the_rule(operations: Path, tmp_path: Path) -> None:
    a = model(tmp_path / "a", words("the", "<eos>"), seed=1)
    b = model(tmp_path / "b", words("dog", "<eos>"), seed=2)
    rule = ("--tokenizer", b, "--pad-to-multiple-of", "4")
    done = dropped.command(operations, "merge", "mean", a, b, tmp_path / "out", *rule)
    assert done.code == 0, done.err
    assert firsts(tmp_path / "out")[:2] == [2000, 1501]
    with pytest.raises(uvmerge.UsageError, match="needs --tokenizer"):
        uvmerge.mean(a, b, tmp_path / "o", pad_to_multiple_of=4)
