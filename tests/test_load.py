"""No code of a checkpoint ever runs, whatever it names as its class, and whoever says yes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import zoo
from command import uv
from safetensors.torch import load_file, save_file

import uvmerge
from uvmerge import InputRefused
from uvmerge.demo import pair
from uvmerge.models import classes, clean, sealing
from uvmerge.models.load import load_model, load_tokenizer

BASE = pair()[0]
CODE = {
    "AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoModelForCausalLM": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"], "AutoProcessor": "evil.Processor",
}  # fmt: skip


AUTO = [name for name in dir(transformers) if re.match("Auto[A-Z]", name)]


class Yes(io.TextIOBase):
    """A standard input on which somebody says yes to everything."""

    asked = 0

    def readline(self, _size: int = -1) -> str:  # type: ignore[override]
        self.asked += 1
        return "yes\n"


def edit(folder: Path, file: str, change: dict[str, Any]) -> None:
    path = folder / file
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(data | change))


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """The demo's base model, with code beside it that makes a file wherever it is run."""
    folder = shutil.copytree(BASE, tmp_path / "evil")
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n" + "".join(
        f"class {name}: pass\n"
        for name in ("Config", "Model", "Tokenizer", "Processor", "generate")
    )
    (folder / "custom_generate").mkdir()
    for name in ("evil.py", "modeling_evil.py", "custom_generate/generate.py"):
        (folder / name).write_text(code)
    (tmp_path / "prompts.jsonl").write_text('"ten J Q 3 4 ="\n')
    return folder


def outcomes(evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> list[tuple[int, str]]:
    """How the commands that load a model end, with yes on standard input."""
    ends = []
    prompts = evil.parent / "prompts.jsonl"
    for words in (["check", "--load", evil], ["diff", evil, BASE, "--kl", prompts]):
        monkeypatch.setattr(sys, "stdin", Yes())
        shown = uv(capsys, *words)
        ends.append((shown.code, shown.err))
        assert sys.stdin.asked == 0 and "Traceback" not in shown.err  # type: ignore[attr-defined]
    assert not (evil.parent / "ran").exists()
    return ends


ATTACKS: dict[str, tuple[dict[str, Any], str]] = {
    "auto class, code by map": ({"architectures": ["AutoModelForCausalLM"], "auto_map": CODE},
                                "its model class AutoModelForCausalLM is not in transformers"),
    "auto class, family unknown": ({"architectures": ["AutoModelForCausalLM"], "model_type": "evil",
                                    "auto_map": CODE}, "AutoModelForCausalLM is not in"),
    "auto class, no map": ({"architectures": ["AutoModel"]}, "class AutoModel is not in"),
    "config class": ({"architectures": ["AutoConfig"], "auto_map": CODE}, "AutoConfig is not in"),
    "own class": ({"architectures": ["Evil"], "auto_map": CODE}, "class Evil is not in"),
    "own class of an own family": ({"architectures": ["Evil"], "model_type": "evil",
                                    "auto_map": CODE}, "class Evil is not in"),
    "code of another repository": ({"architectures": ["Evil"], "auto_map": {
        "AutoModelForCausalLM": "org/repo--evil.Model"}}, "class Evil is not in"),
    "pipeline": ({"architectures": ["pipeline"], "auto_map": CODE}, "class pipeline is not in"),
    "module": ({"architectures": ["models"], "auto_map": CODE}, "class models is not in"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "named"), ATTACKS.values(), ids=ATTACKS)
def test_a_class_of_its_own_is_refused_by_name_and_never_run(
    config: dict[str, Any], named: str, evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    edit(evil, "config.json", config)
    checked, compared = outcomes(evil, monkeypatch, capsys)
    assert (checked[0], compared[0]) == (4, 3)
    assert named in checked[1] and named in compared[1]
    says_so = "Python code of its own, which is not run here" in checked[1]
    assert says_so == ("auto_map" in config)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"auto_map": CODE}),
        ("config.json", {"auto_map": CODE, "trust_remote_code": True, "custom_generate": "evil"}),
        ("config.json", {"_attn_implementation": "org/evil:attention"}),
        ("config.json", {"attn_implementation": "org/evil", "use_kernels": True,
                         "experts_implementation": "org/evil:experts"}),
        ("config.json", {"_attn_implementation_internal": "flash_attention_2"}),
        ("config.json", {"transformers_weights": "../other.safetensors"}),
        ("config.json", {"rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default",
                                             "auto_map": CODE}}),
        ("config.json", {"attribute_map": {"other": "auto_map", "more": "_attn_implementation"},
                         "other": CODE, "more": "org/evil"}),
        ("config.json", {"__dict__": {"auto_map": CODE}, "sub_configs": {"part": "evil.Config"}}),
        ("config.json", {"quantization_config": {"quant_method": "evil.Quantizer"}}),
        ("tokenizer_config.json", {"tokenizer_file": "/dev/zero", "init_inputs": ["/dev/zero"]}),
        ("tokenizer_config.json", {"auto_map": CODE}),
        ("tokenizer_config.json", {"auto_map": CODE["AutoTokenizer"]}),
        ("processor_config.json", {"auto_map": CODE, "processor_class": "Processor"}),
        ("preprocessor_config.json", {"auto_map": CODE, "image_processor_type": "Processor"}),
        ("generation_config.json", {"custom_generate": "evil", "auto_map": CODE}),
        ("adapter_config.json", {"base_model_name_or_path": "org/evil", "auto_map": CODE}),
    ],
)  # fmt: skip
def test_code_beside_a_class_of_transformers_is_ignored(
    file: str,
    change: dict[str, Any],
    evil: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    edit(evil, file, change)
    checked, compared = outcomes(evil, monkeypatch, capsys)
    assert checked[0] == 0, checked[1]
    assert compared[0] == 0, compared[1]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "AutoModelForCausalLM"}),
        ("tokenizer_config.json", {"tokenizer_class": "Tokenizer", "auto_map": CODE}),
        ("tokenizer_config.json", {"tokenizer_class": "pipeline"}),
        ("tokenizer_config.json", {"tokenizer_class": ["Tokenizer"]}),
        ("config.json", {"tokenizer_class": "AutoModel"}),
    ],
)
def test_a_tokenizer_that_is_none_of_transformers_is_refused_by_name(
    file: str, change: dict[str, Any], evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    edit(evil, "config.json", {"auto_map": CODE})
    edit(evil, file, change)
    _, (code, said) = outcomes(evil, monkeypatch, capsys)
    name = change["tokenizer_class"]
    shown = name if isinstance(name, str) else "['Tokenizer']"
    assert code == 3 and f"its class {shown} is not in transformers" in said
    with pytest.raises(InputRefused, match="is not in transformers"):
        load_tokenizer(evil)


def test_no_key_stands_for_another_one(evil: Path) -> None:
    names = {"other": "auto_map", "more": "_experts_implementation_internal"}
    edit(evil, "config.json", {"attribute_map": names, "other": CODE, "more": "org/evil:experts"})
    config = load_model(evil).model.config
    assert not hasattr(config, "auto_map") and "evil" not in str(config._experts_implementation)


def test_a_quantiser_that_is_no_class_is_refused_by_name(
    evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """torchao calls what it finds under the name, which may be any of its functions."""
    types = {"default": {"_type": "Int4Config", "_data": {"layout": {"_type": "run", "_data": {}}}}}
    quantised = {"quant_method": "torchao", "quant_type": types}
    edit(evil, "config.json", {"quantization_config": quantised})
    checked, compared = outcomes(evil, monkeypatch, capsys)
    assert (checked[0], compared[0]) == (4, 3)
    assert all("its quantization_config names run, which is no class" in said
               for _, said in (checked, compared))  # fmt: skip


def test_a_file_that_timm_would_unpickle_is_not_named(tmp_path: Path) -> None:
    """Older versions of timm load `checkpoint_path` as a pickle of any content."""
    part = {"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "evil.pth", "depth": 3}}
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": part, "drop_path": 0.1}))
    with clean.clean_copy(tmp_path) as copy:
        config = json.loads((copy / "config.json").read_text())
    part["model_args"] = {"depth": 3}
    assert config == {"vision_config": part, "drop_path": 0.1}


def test_the_file_that_is_refused_is_named(evil: Path, capsys: Any) -> None:
    edit(evil, "config.json", {"num_hidden_layers": 10**6})
    shown = uv(capsys, "check", "--load", evil)
    assert shown.code == 4 and "config.json: says num_hidden_layers: 1000000" in shown.err


def test_a_part_that_lies_on_the_hub_is_not_fetched(
    evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(transformers.utils.hub.constants, "HF_HUB_OFFLINE", False)
    part = {"backbone": "org/evil", "use_timm_backbone": False, "use_pretrained_backbone": True}
    whole = {"architectures": ["DetrModel"], "model_type": "detr", **part}
    (evil / "config.json").write_text(json.dumps(whole))
    monkeypatch.setattr(sys, "stdin", Yes())
    shown = uv(capsys, "check", "--load", evil)
    assert shown.code == 0 and "models/org/evil: nothing is fetched from the Hub here" in shown.err


def test_code_of_a_part_of_a_model_is_never_run(
    evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A vision encoder in the place of the decoder: the Auto class inside has no class for it."""
    part = {"auto_map": CODE, "_name_or_path": str(evil), "hidden_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "intermediate_size": 8, "image_size": 8, "patch_size": 8,
            "is_decoder": True, "model_type": "vit"}  # fmt: skip
    whole = {"architectures": ["VisionEncoderDecoderModel"], "model_type": "vision-encoder-decoder",
             "encoder": part, "decoder": part, "auto_map": CODE}  # fmt: skip
    (evil / "config.json").write_text(json.dumps(whole))
    checked, compared = outcomes(evil, monkeypatch, capsys)
    assert (checked[0], compared[0]) == (4, 3)
    assert "transformers cannot load it: Unrecognized configuration class" in checked[1]


@pytest.mark.parametrize("names", [[1], {"a": 1}, "LlamaForCausalLM", [["Llama"]], 3, [None], [{}]])
def test_odd_architectures_are_a_sentence(
    names: object, evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    edit(evil, "config.json", {"architectures": names})
    checked, compared = outcomes(evil, monkeypatch, capsys)
    if names == "LlamaForCausalLM":
        assert checked[0] == 0
        return
    assert (checked[0], compared[0]) == (4, 3)
    assert all("its config.json names no model class" in said for _, said in (checked, compared))


def test_without_a_named_class_the_base_class_of_the_family_is_tried(evil: Path) -> None:
    config = json.loads((evil / "config.json").read_text())
    del config["architectures"]
    (evil / "config.json").write_text(json.dumps(config))
    assert type(load_model(evil).model) is transformers.LlamaModel
    with pytest.raises(InputRefused, match=r"its config\.json names no model class"):
        load_model(evil, causal=True)
    (evil / "config.json").write_text(json.dumps(config | {"model_type": "evil"}))
    with pytest.raises(InputRefused, match=r"its config\.json names no model class"):
        load_model(evil)


@pytest.mark.parametrize("command", ["check", "diff"])
def test_nobody_is_asked_in_a_process_of_its_own(command: str, evil: Path) -> None:
    """Python would also find modules in the current folder, here the checkpoint's."""
    shutil.copy(evil / "evil.py", evil / "torch.py")
    shutil.copy(evil / "evil.py", evil / "timm.py")
    for file in ("config.json", "tokenizer_config.json", "processor_config.json"):
        edit(evil, file, {"auto_map": CODE})
    words: dict[str, list[Any]] = {
        "check": ["check", "--load", "."],
        "diff": ["diff", BASE, ".", "--kl", evil.parent / "prompts.jsonl"],
    }
    if command == "check":
        edit(evil, "config.json", ATTACKS["auto class, family unknown"][0])
    path = os.pathsep.join([str(Path(uvmerge.__file__).parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "uvmerge", *map(str, words[command])], cwd=evil,
        env=os.environ | {"PYTHONPATH": path}, input=b"yes\n" * 10_000, capture_output=True,
    )  # fmt: skip
    assert done.returncode == {"check": 4, "diff": 0}[command], done.stderr
    if command == "check":
        assert b"AutoModelForCausalLM is not in transformers" in done.stderr
    assert b"[y/N]" not in done.stdout + done.stderr and not (evil.parent / "ran").exists()


def resolved(name: str, family: str = "llama") -> Any:
    return classes.class_of_transformers(name, family, Path("folder"))


def test_the_list_holds_model_classes_of_transformers_and_nothing_else() -> None:
    names = {
        name for table in classes.tables().values() for listed in table.values()
        for name in ([listed] if isinstance(listed, str) else listed)
    }  # fmt: skip
    assert len(names) > 800 and not names & set(AUTO)
    for name in ("LlamaForCausalLM", "T5ForConditionalGeneration", "ViTModel", "BertForMaskedLM"):
        kind = resolved(name, "")
        assert name in names and issubclass(kind, transformers.PreTrainedModel)
        assert kind.__name__ == name and kind.__module__.startswith("transformers.models.")


def test_every_other_name_of_transformers_is_refused() -> None:
    named = [*AUTO, *(name for name in dir(transformers) if name.startswith(("pipe", "Trainer")))]
    private = [
        "__class__",
        "__dict__",
        "LlamaPreTrainedModel",
        "PreTrainedModel",
        "LlamaConfig",
        "",
    ]
    assert len(named) > 30 and callable(transformers.pipeline)
    for name in [*named, *private]:
        for family in ("llama", "auto", "", "rag"):
            kind = resolved(name, family)
            assert kind is None, name


def test_a_class_that_no_task_lists_is_found_in_its_family() -> None:
    assert resolved("CLIPVisionModelWithProjection", "clip") is not None
    assert resolved("CLIPVisionModelWithProjection", "clip_vision_model") is not None
    assert resolved("CLIPVisionModelWithProjection", "llama") is None


def test_a_model_of_another_package_is_not_tried(tmp_path: Path) -> None:
    folder = shutil.copytree(BASE, tmp_path / "timm")
    edit(
        folder, "config.json", {"architectures": ["TimmWrapperModel"], "model_type": "timm_wrapper"}
    )
    with pytest.raises(InputRefused, match="it is built by another package") as refused:
        load_model(folder)
    assert isinstance(refused.value.__cause__, ImportError)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"hidden_size": 10**7}, "parameters, its files hold"),
        ({"num_hidden_layers": 10**4}, "parameters, its files hold"),
        ({"num_hidden_layers": 10**6}, "1000000, which is more than 10,000"),
        (
            {"num_hidden_layers": 10**12},
            "says num_hidden_layers: 1000000000000, which is more than",
        ),
        ({"num_labels": 10**9}, "says num_labels: 1000000000, which is more than 1,000,000"),
        ({"x": {"num_experts": 1e300}}, "says num_experts: 1e"),
        (
            {"x": [[[]] * 3] * 3, "y": json.loads("[" * 200 + "]" * 200)},
            "nested deeper than 64 levels",
        ),
        ({"dtype": "evil"}, "transformers cannot load it"),
    ],
)
def test_a_config_without_measure_is_refused_before_memory_is_taken(
    tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    folder = shutil.copytree(BASE, tmp_path / "large")
    edit(folder, "config.json", change)
    with pytest.raises(InputRefused) as refused:
        load_model(folder)
    assert what in str(refused.value) and str(tmp_path) in str(refused.value)


def test_a_config_of_many_megabytes_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(BASE, tmp_path / "large")
    (folder / "tokenizer_config.json").write_text(json.dumps({"x": "x" * 17_000_000}))
    with pytest.raises(InputRefused, match="has at most 16"):
        load_model(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "added_tokens.json", "chat_template.jinja"])
def test_a_tokenizer_of_gigabytes_is_refused_unread(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(BASE, tmp_path / "large")
    (folder / name).touch()
    os.truncate(folder / name, 20 * 2**30)
    with pytest.raises(InputRefused, match=f"{name}: is larger than 268 MB"):
        load_tokenizer(folder)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = shutil.copytree(BASE, tmp_path / "pipe")
    (folder / "tokenizer_config.json").unlink()
    for name in ("tokenizer_config.json", "generation_config.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    assert type(load_model(folder).model) is transformers.LlamaForCausalLM


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    folder = shutil.copytree(BASE, tmp_path / "pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputRefused, match="holds its weights as pickles"):
        load_model(folder)


@pytest.mark.parametrize("change", [{"attn_implementation": "sdpa"}, {}])
def test_attention_is_plain_in_every_part(change: dict[str, Any], tmp_path: Path) -> None:
    folder = zoo.make("llava", tmp_path / "llava")
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["vision_config"], config["text_config"]):
        part |= change | {f"_{key}": value for key, value in change.items()}
    (folder / "config.json").write_text(json.dumps(config))
    config = load_model(folder).model.config
    parts = (config, config.vision_config, config.text_config)
    assert [part._attn_implementation for part in parts] == ["eager"] * 3


def test_weights_are_those_of_the_files_whatever_they_are_called(tmp_path: Path) -> None:
    folder = zoo.make("llama", tmp_path / "cut", shard_bytes=zoo.SHARD_BYTES)
    (folder / "deep").mkdir()
    index = json.loads((folder / zoo.INDEX).read_text())
    for name in set(index["weight_map"].values()):
        (folder / name).rename(folder / "deep" / name)
    index["weight_map"] = {key: f"deep/{name}" for key, name in index["weight_map"].items()}
    (folder / zoo.INDEX).write_text(json.dumps(index))
    loaded = load_model(folder)
    assert not loaded.missing and not loaded.unexpected and not loaded.model.training
    for name, tensor in loaded.model.state_dict().items():
        stored = index["weight_map"][name]
        assert torch.equal(tensor, load_file(folder / stored)[name]), name


def test_what_does_not_fit_the_class_is_listed(tmp_path: Path) -> None:
    folder = shutil.copytree(BASE, tmp_path / "odd")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(7)
    tensors["extra.weight"] = tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(folder)
    assert loaded.missing == ("lm_head.weight",) and loaded.unexpected == ("extra.weight",)
    assert len(loaded.mismatched) == 1 and loaded.mismatched[0].startswith("model.norm.weight")


def test_the_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    logging: Any = transformers.utils.logging
    kernels: Any = transformers.integrations.hub_kernels
    monkeypatch.delattr(kernels, "get_kernel_hub", raising=False)
    monkeypatch.setattr(transformers.utils.hub.constants, "HF_HUB_OFFLINE", False)
    yes = Yes()
    monkeypatch.setattr(sys, "stdin", yes)
    logging.enable_progress_bar()
    logging.set_verbosity_info()
    try:
        with sealing.sealed():
            assert not logging.is_progress_bar_enabled()
            with pytest.raises(EOFError):
                input()
            assert transformers.utils.hub.is_offline_mode()
            with pytest.raises(ImportError, match="org/evil, a kernel of the Hub"):
                kernels.get_kernel_hub("org/evil", version=1)
        assert not transformers.utils.hub.is_offline_mode()
        assert not hasattr(kernels, "get_kernel_hub")
        assert logging.is_progress_bar_enabled() and logging.get_verbosity() == logging.INFO
        assert sys.stdin is yes
    finally:
        logging.set_verbosity_warning()
        logging.disable_progress_bar()
