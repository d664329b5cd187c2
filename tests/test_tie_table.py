"""The table of tied names: what it says of a config, and that transformers says the same."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import transformers

from uvmerge.checkpoint.tie_table import tied_names, tied_sets

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

from families.configs import families
from families.ties import pattern, ties_of

LLAMA = {"architectures": ["LlamaForCausalLM"]}
HEAD = ("lm_head.weight", "model.embed_tokens.weight")


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (LLAMA | {"tie_word_embeddings": True}, True),
        (LLAMA | {"tie_word_embeddings": False}, False),
        (LLAMA, False),
        (LLAMA | {"text_config": {"tie_word_embeddings": True}}, True),
        ({"architectures": ["GemmaForCausalLM"]}, True),
        ({"architectures": ["GemmaForCausalLM"], "tie_word_embeddings": False}, False),
        ({"architectures": ["NoSuchModel"], "tie_word_embeddings": True}, False),
        ({"tie_word_embeddings": True}, False),
    ],
)
def test_a_config_ties_where_it_or_its_architecture_says_so(
    config: dict[str, object], tied: bool
) -> None:
    assert (HEAD in tied_names(config)) is tied


def test_a_set_holds_the_names_that_are_not_stored() -> None:
    config = {"architectures": ["T5ForConditionalGeneration"], "tie_word_embeddings": True}
    expected = {"shared.weight", "lm_head.weight"}
    expected |= {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert tied_sets(config, ["shared.weight", "encoder.final_layer_norm.weight"]) == [expected]
    assert tied_sets(config, ["encoder.final_layer_norm.weight"]) == []


def test_numbers_that_agree_bind_and_numbers_that_differ_do_not() -> None:
    config = {"architectures": ["DFineForObjectDetection"], "tie_word_embeddings": True}
    names = ["class_embed.0.weight", "class_embed.1.weight", "model.decoder.class_embed.1.weight"]
    assert sorted(map(sorted, tied_sets(config, names))) == [
        ["class_embed.0.weight", "model.decoder.class_embed.0.weight"],
        ["class_embed.1.weight", "model.decoder.class_embed.1.weight"],
    ]
    zamba = {"architectures": ["Zamba2ForCausalLM"], "tie_word_embeddings": True}
    names = [f"model.layers.{i}.shared_transformer.self_attn.q_proj.weight" for i in (1, 3, 11)]
    assert tied_sets(zamba, names) == [set(names)]


def test_patterns_keep_what_tells_names_apart() -> None:
    assert pattern(["a.1.w", "a.2.w"]) == ("a.*.w",)
    assert pattern(["a.1.w", "b.1.w"]) == ("a.#.w", "b.#.w")
    assert pattern(["a.1.w", "b.2.w"]) == ("a.1.w", "b.2.w")
    assert pattern(["head.w", "embed.w"]) == ("embed.w", "head.w")


@pytest.mark.parametrize("name", ["bart", "bert", "gemma3", "llama", "t5"])
def test_the_table_is_what_the_installed_transformers_ties(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    family = next(family for family in families() if family.name == name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ties = ties_of(family)
    config = {
        "architectures": [family.architecture],
        "transformers_version": transformers.__version__,
    }
    rows = tied_names(config | {"tie_word_embeddings": True})
    assert ties.names and ties.names <= set(rows)  # other families have the architecture, too
    assert ties.always == set(tied_names(config | {"tie_word_embeddings": False}))
    assert bool(tied_names(config)) is ties.default
