"""Small inputs that fit a model: tokens, an image or a sound, made up from the sizes in its config.

The parameters of a model's `forward` say which inputs the model takes; its config gives their
shapes. Where families differ in a way that neither tells (one image, or a list of images), the
shapes are candidates, to be tried in turn.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Arguments = dict[str, Any]
Shape = tuple[int, ...]
# Candidates, each with the further arguments that describe it.
Shapes = Iterator[tuple[Shape, Arguments]]

TOKENS, PATCHES, FRAMES, SAMPLES = 8, 16, 64, 16_000
SIDE, MEL_BINS = 64, 80  # where the config has no size
LARGEST = 2**27  # values of an input: half a gigabyte in float32
_TEXT = "input_ids"
_IMAGE, _AUDIO = ("get_image_features", "image_token"), ("get_audio_features", "audio_token")
# Images and sounds that a model may take: the method that turns them into embeddings, and the name
# of the token that stands for one of these.
_MODALITIES = {
    "pixel_values": _IMAGE, "pixel_values_videos": _IMAGE, "flattened_patches": _IMAGE,
    "input_features": _AUDIO, "input_values": _AUDIO, "past_values": _AUDIO,
}  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """Arguments of one forward pass.

    Attributes:
        words: a description for people, like `9 tokens and pixel_values of 1×3×16×16`.
        arguments: keyword arguments of the model's `forward`, on the model's device.
    """

    words: str
    arguments: Arguments = field(repr=False)


def candidates(model: Any) -> Iterator[Inputs]:
    """Inputs to try on `model` in turn, first those that reach most of its parts."""
    takes = inspect.signature(model.forward).parameters
    for name in _MODALITIES:
        if name not in takes or (name == "pixel_values_videos" and "pixel_values" in takes):
            continue
        for shape, more in _shapes(name, model.config, takes):
            if not _is_small(shape):
                continue
            media = {name: _noise(name, shape, model), **_on_device(more, model)}
            words = f"{name} of {'×'.join(map(str, shape))}"
            tokens = _tokens(model, takes, _placeholders(model, name, media))
            yield Inputs(_joined(tokens, words), {**tokens, **media})
    if _TEXT in takes:
        tokens = _tokens(model, takes, {})
        yield Inputs(_joined(tokens), tokens)


def _joined(tokens: Mapping[str, Any], *words: str) -> str:
    text = tokens.get(_TEXT, tokens.get("decoder_input_ids"))
    return " and ".join([*([] if text is None else [f"{text.shape[-1]} tokens"]), *words])


# Text ------------------------------------------------------------------------------------------


def _tokens(model: Any, takes: Mapping[str, Any], rows: Mapping[int, int]) -> Arguments:
    """The text arguments: plain token ids, placeholders among them, and the end-of-text token.

    The end-of-text token comes last, because classifiers of encoder-decoder models look for it.

    Args:
        takes: the parameters of the model's `forward`.
        rows: by token id, how many placeholders with this id to insert.
    """
    config = model.config
    tokens: Arguments = {}
    if _TEXT in takes:
        ids, end = _plain_ids(model, _text_config(config))
        places = [id for id, count in rows.items() for _ in range(count)]
        ids = [*ids[:2], *places, *ids[2:], *end]
        known: Arguments = {
            _TEXT: ids, "qformer_input_ids": ids, "attention_mask": [1] * len(ids),
            "mm_token_type_ids": [int(id in rows) for id in ids], "bbox": [[0] * 4] * len(ids),
        }  # fmt: skip
        tokens = {name: values for name, values in known.items() if name in takes}
    if "decoder_input_ids" in takes and config.is_encoder_decoder:
        ids, end = _plain_ids(model, config.get_text_config(decoder=True))
        tokens["decoder_input_ids"] = [*ids, *end]
    if type(model).__name__.endswith("ForMultipleChoice"):
        tokens = {name: [values] for name, values in tokens.items()}
    batch = _on_device({name: [values] for name, values in tokens.items()}, model)
    return {**batch, "use_cache": False} if "use_cache" in takes else batch


def _text_config(config: Any) -> Any:
    """The part of a config that describes `input_ids`; the encoder's where there are two (MusicGen)."""
    try:
        return config.get_text_config()
    except ValueError:
        return config.get_text_config(encoder=True)


def _plain_ids(model: Any, text: Any) -> tuple[list[int], list[int]]:
    """The first token ids from 1 on that are not special, like padding; and the end-of-text id, if any."""
    vocabulary = getattr(text, "vocab_size", None) or 2 * TOKENS
    special = {
        value for part in _configs_within(model.config) for key, value in vars(part).items()
        if key.endswith(("_id", "_token_index")) and isinstance(value, int)
    }  # fmt: skip
    plain = islice((id for id in range(1, vocabulary) if id not in special), TOKENS)
    ends = getattr(text, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    known = [end for end in ends if isinstance(end, int) and 0 <= end < vocabulary]
    return list(plain) or [0], known[:1]


def _placeholders(model: Any, name: str, media: Arguments) -> dict[int, int]:
    """By token id, how many placeholders stand for the embeddings of an image or a sound.

    Args:
        name: the parameter of `forward` that takes the image or sound.
        media: this argument, and those that describe it.
    """
    import torch

    method, token = _MODALITIES[name]
    id = _find(model.config, f"{token}_id", f"{token}_index")
    makes = next(
        (m for each in (model, model.base_model) if (m := getattr(each, method, None))), None
    )
    if not isinstance(id, int):
        return {}
    if makes is None:  # the model replaces one placeholder by as many as it needs
        return {id: 1}
    takes = inspect.signature(makes).parameters
    try:
        with torch.inference_mode():
            found = makes(**{key: value for key, value in media.items() if key in takes})
    except Exception:  # the forward pass will fail in the same way, and report it
        return {}
    return {id: _count(getattr(found, "pooler_output", found))}


def _count(features: Any) -> int:
    """The number of vectors in a tensor (…, d), or in all tensors within lists."""
    if isinstance(features, (list, tuple)):
        return sum(map(_count, features))
    return features.numel() // features.shape[-1] if hasattr(features, "numel") else 0


# Images and sounds -------------------------------------------------------------------------------


def _shapes(name: str, config: Any, takes: Mapping[str, Any]) -> Shapes:
    """Candidate shapes of the argument `name`; `takes` holds the parameters of `forward`."""
    if name.startswith("pixel_values"):
        yield from _pictures(config, takes)
    elif name == "flattened_patches":  # row, column, then the values of a patch
        yield (1, PATCHES, 2 + _patch_values(config)), {}
    elif name == "past_values":
        length, channels = _find(config, "context_length"), _find(config, "num_input_channels")
        yield (1, length or FRAMES, channels or 1), {}
    else:
        masks = [
            mask for mask in ("feature_attention_mask", "input_features_mask") if mask in takes
        ]
        for shape in filter(_is_small, _sounds(name, config)):
            yield shape, {mask: [[1] * max(shape[1:])] for mask in masks}


def _pictures(config: Any, takes: Mapping[str, Any]) -> Shapes:
    """Shapes of images: rows of patches first, then tiles, a film, one image, a list of images."""
    height, width = _sides(_vision(config, "image_size", "crop_size") or SIDE)
    channels = _vision(config, "num_channels", "in_channels", "in_chans") or 3
    picture = (channels, height, width)
    if grid := next((name for name in ("image_grid_thw", "grid_thw") if name in takes), None):
        side = 2 * (_vision(config, "spatial_merge_size") or 1)
        yield (side**2, _patch_values(config)), {grid: [[1, side, side]]}
    if "spatial_shapes" in takes:
        mask: Arguments = {
            "pixel_attention_mask": [[1] * PATCHES],
            "spatial_shapes": [[4, PATCHES // 4]],
        }
        yield (1, PATCHES, _patch_values(config)), mask
    if pinpoints := _find(config, "image_grid_pinpoints"):
        tiles = math.prod(-(-side // height) for side in pinpoints[0])
        yield (1, 1 + tiles, *picture), {"image_sizes": [list(pinpoints[0])]}
    tiles = _vision(config, "max_num_tiles") or 1
    if "aspect_ratio_ids" in takes and _is_small((tiles, *picture)):
        mask = {"aspect_ratio_ids": [[1]], "aspect_ratio_mask": [[[1] + [0] * (tiles - 1)]]}
        yield (1, 1, tiles, *picture), mask
    if frames := _find(config, "num_frames", "frames_per_clip"):
        yield (1, frames, *picture), {}
    yield (1, *picture), {}
    if "image_sizes" in takes:
        yield (1, *picture), {"image_sizes": [[height, width]]}
    yield (1, 1, *picture), {}


def _is_small(shape: Shape) -> bool:
    """Whether an input of this shape may be made: a config can ask for one beyond all memory."""
    return math.prod(shape) <= LARGEST


def _patch_values(config: Any) -> int:
    """How many numbers one patch of an image has, over all the frames that it spans."""
    side, _ = _sides(_vision(config, "patch_size") or PATCHES)
    channels = _vision(config, "num_channels", "in_channels", "in_chans") or 3
    return channels * (_vision(config, "temporal_patch_size") or 1) * side**2


def _sounds(name: str, config: Any) -> Iterator[Shape]:
    """Shapes of sounds: a waveform where the config has strides for one, then layouts of spectra."""
    bins = _audio(config, "num_mel_bins", "feature_size")
    frames, spectrum = _audio(config, "max_source_positions"), _audio(config, "spec_size")
    strides = _audio(config, "conv_stride")
    if isinstance(strides, (list, tuple)):
        yield (1, math.prod(strides) * FRAMES)
    if spectrum and bins:
        yield (1, 1, spectrum**2 // bins, bins)
    if frames and bins:
        yield (1, bins, 2 * frames)
    if width := _audio(config, "feature_projection_input_dim", "input_feat_per_channel"):
        yield (1, FRAMES, width)
    if name == "input_values":
        yield from [(1, _audio(config, "max_length") or FRAMES, bins)] if bins else []
        yield from ((1, SAMPLES), (1, 1, SAMPLES))
    yield from ((1, FRAMES, bins or MEL_BINS), (1, bins or MEL_BINS, FRAMES))


def _sides(size: Any) -> tuple[int, int]:
    """Height and width from the size of an image in a config: a number, a list or an object."""
    sides = [*size.values()] if isinstance(size, dict) else size
    return (sides[0], sides[-1]) if isinstance(sides, (list, tuple)) else (sides, sides)


# Configs and tensors -----------------------------------------------------------------------------


def _configs_within(config: Any) -> Iterator[Any]:
    """`config` and all configs nested in it, outer ones first."""
    waiting = [config]
    while waiting:
        part = waiting.pop(0)
        yield part
        waiting += [each for each in vars(part).values() if hasattr(each, "model_type")]


def _find(config: Any, *names: str, of: str = "") -> Any:
    """The first value under any of `names`; nested configs whose `model_type` contains `of` go first."""
    parts = sorted(_configs_within(config), key=lambda part: of not in part.model_type)
    values = (getattr(part, name, None) for part in parts for name in names)
    return next((value for value in values if value is not None), None)


def _vision(config: Any, *names: str) -> Any:
    return _find(config, *names, of="vision")


def _audio(config: Any, *names: str) -> Any:
    return _find(config, *names, of="audio")


def _noise(name: str, shape: Shape, model: Any) -> Tensor:
    """Repeatable normal random values of `shape`, on the device and in the dtype of the model."""
    import torch

    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if name == "flattened_patches":
        values[..., :2] = 1  # row and column
    return values.to(model.device, model.dtype)


def _on_device(lists: Mapping[str, Any], model: Any) -> Arguments:
    import torch

    return {name: torch.tensor(values, device=model.device) for name, values in lists.items()}
