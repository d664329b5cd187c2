"""`check --load` runs every kind of model on inputs that fit, and says so where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import zoo
from command import uv
from safetensors.torch import load_file, save_file

from uvmerge.models import inputs
from uvmerge.models.trial import trial

T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 61}
BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": 61,
    "max_position_embeddings": 32, "decoder_start_token_id": 2,
}  # fmt: skip
WHISPER = BART | {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 32}
WHISPER |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODER |= {"intermediate_size": 24, "vocab_size": 61, "max_position_embeddings": 32}
VIT = {k: ENCODER[k] for k in (*list(ENCODER)[:4],)} | {"image_size": 16, "patch_size": 8}
WAVE = ENCODER | {"conv_dim": [8, 8], "conv_stride": [5, 2], "conv_kernel": [10, 3]}
WAVE |= {
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
DUAL = {"text_config": ENCODER | {"projection_dim": 8, "eos_token_id": 60},
        "vision_config": VIT | {"projection_dim": 8}, "projection_dim": 8}  # fmt: skip
MAMBA = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 61}
JAMBA = ENCODER | {"num_key_value_heads": 1, "mamba_d_state": 4, "mamba_dt_rank": 4,
                   "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
                   "num_experts": 2, "use_mamba_kernels": False}  # fmt: skip
NEMOTRON = {
    "hidden_size": 16, "layers_block_type": ["mamba", "attention", "mlp"], "vocab_size": 61,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 24,
    "mamba_num_heads": 4, "mamba_head_dim": 8, "n_groups": 1, "ssm_state_size": 4,
}  # fmt: skip
IDEFICS = {"vision_config": VIT | {"image_size": 32}, "image_token_id": 60, "scale_factor": 2,
           "text_config": ENCODER | {"model_type": "llama", "num_key_value_heads": 1}}  # fmt: skip
EARS = {"model_type": "qwen2_audio_encoder", "d_model": 16, "encoder_layers": 1,
        "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "num_mel_bins": 8,
        "max_source_positions": 16}  # fmt: skip
LISTENER = {"text_config": ENCODER | {"model_type": "qwen2", "num_key_value_heads": 1},
            "audio_config": EARS, "audio_token_index": 60}  # fmt: skip
SPEECH = BART | {"input_feat_per_channel": 8, "conv_channels": 8}
SPEECH |= {"max_source_positions": 64, "max_target_positions": 32}

# model class, its config's options, what the forward pass runs on
KINDS: list[tuple[str, dict[str, Any], str]] = [
    ("T5ForConditionalGeneration", T5, "9 tokens"),
    ("T5EncoderModel", T5, "9 tokens"),
    ("BartForConditionalGeneration", BART, "9 tokens"),
    ("BartForSequenceClassification", BART, "9 tokens"),
    ("BertForQuestionAnswering", ENCODER, "8 tokens"),
    ("BertForMultipleChoice", ENCODER, "8 tokens"),
    ("RobertaForMaskedLM", ENCODER, "9 tokens"),
    ("ViTForImageClassification", VIT, "pixel_values of 1×3×16×16"),
    ("CLIPVisionModelWithProjection", VIT, "pixel_values of 1×3×16×16"),
    ("CLIPModel", DUAL, "9 tokens and pixel_values of 1×3×16×16"),
    ("Siglip2VisionModel", VIT | {"num_patches": 16}, "pixel_values of 1×16×192"),
    ("VideoMAEModel", VIT | {"num_frames": 2}, "pixel_values of 1×2×3×16×16"),
    ("ConvNextModel", {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2,
                       "image_size": 32}, "pixel_values of 1×3×32×32"),
    ("Wav2Vec2ForCTC", WAVE, "input_values of 1×640"),
    ("ASTModel", ENCODER | {"max_length": 32, "num_mel_bins": 16, "patch_size": 8,
                            "frequency_stride": 8, "time_stride": 8}, "input_values of 1×32×16"),
    ("WhisperForConditionalGeneration", WHISPER, "9 tokens and input_features of 1×8×32"),
    ("Speech2TextForConditionalGeneration", SPEECH, "9 tokens and input_features of 1×64×8"),
    ("MambaForCausalLM", MAMBA, "9 tokens"),
    ("JambaForCausalLM", JAMBA, "9 tokens"),
    ("NemotronHForCausalLM", NEMOTRON, "9 tokens"),
    ("Idefics3ForConditionalGeneration", IDEFICS,
     "13 tokens and pixel_values of 1×1×3×32×32"),
    ("Qwen2AudioForConditionalGeneration", LISTENER, "9 tokens and input_features of 1×8×32"),
]  # fmt: skip


def make(folder: Path, name: str, options: dict[str, Any]) -> Path:
    """Save a small random model of the class `name`."""
    kind = getattr(transformers, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(kind.config_class(**options))
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("name", "options", "words"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_kind_of_model_runs_on_inputs_that_fit(
    name: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    tried = trial(make(tmp_path / "model", name, options))
    assert tried.problems == () and (tried.loaded, tried.forward) == (name, words)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("gpt2", "9 tokens"),
        ("bert", "9 tokens"),
        ("mixtral", "9 tokens"),
        ("llava", "13 tokens and pixel_values of 1×3×16×16"),
        ("gemma3_vision", "13 tokens and pixel_values of 1×3×16×16"),
        ("qwen2_vl", "13 tokens and pixel_values of 16×96"),
        ("qwen3_vl", "13 tokens and pixel_values of 16×96"),
    ],
)
def test_every_family_of_the_zoo_runs_with_all_its_senses(
    family: str, words: str, tmp_path: Path
) -> None:
    tried = trial(zoo.make(family, tmp_path / family))
    assert tried.problems == () and tried.forward == words


@pytest.mark.parametrize(
    ("family", "part"),
    [("llava", "vision_tower"), ("qwen2_vl", "visual."), ("T5ForConditionalGeneration", "encoder"),
     ("WhisperForConditionalGeneration", "encoder.conv1"), ("CLIPModel", "text_model")],
)  # fmt: skip
def test_the_forward_pass_reaches_every_part(family: str, part: str, tmp_path: Path) -> None:
    options = next((options for name, options, _ in KINDS if name == family), None)
    if options is None:
        folder = zoo.make(family, tmp_path / family)
    else:
        folder = make(tmp_path / family, family, options)
    tensors = load_file(folder / zoo.SINGLE)
    name = next(name for name in tensors if part in name and tensors[name].ndim >= 2)
    tensors[name].fill_(float("nan"))
    save_file(tensors, folder / zoo.SINGLE, metadata={"format": "pt"})
    assert trial(folder).problems == ("the forward pass gives NaN or Inf",)


def test_a_text_model_that_cannot_be_run_is_a_problem(tmp_path: Path) -> None:
    folder = zoo.make("mixtral", tmp_path / "mixtral")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_experts_per_tok": 9}))
    (problem,) = trial(folder).problems
    assert problem.startswith("a forward pass on 9 tokens fails: ")


def test_inputs_that_cannot_be_made_up_are_said_and_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "xmod", "XmodModel", ENCODER | {"languages": ["en_XX", "de_DE"]})
    shown = uv(capsys, "check", folder, "--load")
    assert shown.code == 0 and "Traceback" not in shown.err
    assert "forward: not tried: made-up inputs do not fit (9 tokens: Input language" in shown.err


def test_of_two_text_configs_the_encoder_takes_the_tokens() -> None:
    """MusicGen's config has a text encoder and a decoder, between which transformers cannot choose."""
    config = transformers.MusicgenConfig(
        text_encoder=transformers.T5Config().to_dict(),
        audio_encoder=transformers.EncodecConfig().to_dict(),
        decoder=transformers.MusicgenDecoderConfig().to_dict(),
    )
    with pytest.raises(ValueError, match="ambiguous"):
        config.get_text_config()
    assert inputs._text_config(config).model_type == "t5"


def test_inputs_beyond_all_memory_are_not_made() -> None:
    sizes = {"hidden_sizes": [8] * 4, "depths": [1] * 4}
    small, large = (transformers.ConvNextConfig(**sizes, image_size=n) for n in (32, 10**6))
    assert next(inputs.candidates(transformers.ConvNextModel(small)))
    assert not list(inputs.candidates(transformers.ConvNextModel(large)))
    waves = transformers.Wav2Vec2Config(
        conv_stride=(10,) * 12, conv_kernel=(3,) * 12, conv_dim=(8,) * 12
    )
    shapes = [shape for shape, _ in inputs._shapes("input_values", waves, {"input_values": 0})]
    assert shapes and max(map(max, shapes)) <= inputs.SAMPLES


def test_an_error_while_inputs_are_made_up_is_said_and_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "bert", "BertModel", ENCODER)
    monkeypatch.setattr(inputs, "_plain_ids", lambda *_: 1 / 0)
    tried = trial(folder)
    assert tried.forward == "not tried: no inputs for it can be made up (division by zero)"
    assert not tried.problems


def test_a_package_that_is_missing_is_said_and_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = zoo.make("llama", tmp_path / "llama")
    config = {"architectures": ["TimmWrapperModel"], "model_type": "timm_wrapper"}
    (folder / "config.json").write_text(json.dumps(config))
    shown = uv(capsys, "check", folder, "--load")
    assert shown.code == 0 and "forward:" not in shown.err
    assert "loaded: not tried: its model class TimmWrapperModel cannot be used here" in shown.err


def test_what_was_run_is_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "t5", "T5ForConditionalGeneration", T5)
    report = json.loads(uv(capsys, "check", folder, "--load", "--json").out)
    assert report["loaded"].startswith("T5ForConditionalGeneration, ")
    assert report["forward"] == "9 tokens"


def test_a_checkpoint_that_does_not_load_is_a_problem_in_one_sentence(tmp_path: Path) -> None:
    folder = shutil.copytree(zoo.make("llama", tmp_path / "llama"), tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": "four"}))
    tried = trial(folder)
    assert tried.forward is None and len(tried.problems) == 1
    assert tried.problems[0].startswith("transformers cannot load it: ")
    assert "\n" not in tried.problems[0] and "uvmerge-" not in tried.problems[0]


def test_made_up_inputs_are_the_same_every_time_and_name_no_special_token(tmp_path: Path) -> None:
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        zoo.make("llava", tmp_path / "llava")
    )
    first, again = (next(inputs.candidates(model)).arguments for _ in range(2))
    assert all(torch.equal(first[k], again[k]) for k in ("input_ids", "pixel_values"))
    ids = first["input_ids"][0].tolist()
    assert ids.count(100) == 4  # a place for each patch of the image, and none besides
    assert not {0, 1} & set(ids) and ids[-1] == 2  # no padding, no start; the end comes last
