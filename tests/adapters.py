"""PEFT adapters for tiny models, and what PEFT itself makes of them: its own merge, as a checkpoint."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import zoo


def make(
    base: Path, folder: Path, *, b_scale: float = 0.05, dtype: Any = None, **options: Any
) -> Path:
    """Save an adapter for the model in `base` whose values are random; `options` of LoraConfig."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, about names and ties
        model = zoo.load(base)[0]
        torch.manual_seed(7)
        wrapped = peft.get_peft_model(
            model, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **options})
        )
        for name, value in wrapped.named_parameters():
            if value.requires_grad:
                noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name)))
                value.data += b_scale * noise.to(value.dtype)
                if dtype is not None and "lora_" in name:
                    value.data = value.data.to(dtype)
        wrapped.save_pretrained(folder)
    return folder


def merged(base: Path, adapter: Path, folder: Path) -> Path:
    """Write what PEFT's `merge_and_unload` makes of an adapter, in the files of the base."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(zoo.load(base)[0], str(adapter))
        model.merge_and_unload(safe_merge=True).save_pretrained(folder / "as-saved")
    tensors = zoo.raw(folder / "as-saved")
    shutil.copytree(base, folder, dirs_exist_ok=True)
    for path in zoo.files(base):
        (header, _), whole = zoo.header(path), path.read_bytes()
        header.pop("__metadata__", None)
        names = sorted(header, key=lambda name: header[name]["data_offsets"])
        size = sum(len(tensors[name]) for name in names)
        start = whole[: len(whole) - size]
        (folder / path.name).write_bytes(start + b"".join(tensors[name] for name in names))
    shutil.rmtree(folder / "as-saved")
    return folder


def copied(adapter: Path, folder: Path, **changes: Any) -> Path:
    """Copy an adapter, with other values in its config."""
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder
