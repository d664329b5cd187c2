"""The parsers under test: for each one, good files and what has to hold for a damaged one.

A judge returns a word for what became of the input (`accepted`, `refused`, …), and raises for
anything that must not happen: an exception that is no `UvmergeError`, or a damaged file believed.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
import torch
import xxhash
import yaml
from safetensors.torch import save, save_file

from uvmerge.api import check, check_files
from uvmerge.checkpoint import bounded, header
from uvmerge.checkpoint.folder import INDEX, Checkpoint
from uvmerge.engine.factors import FactorFolder
from uvmerge.errors import UvmergeError
from uvmerge.output import journal, manifest
from uvmerge.output.sidefiles import runs_code, sides_of
from uvmerge.output.tree import Tree
from uvmerge.plan import planner
from uvmerge.recipe.bundled import bundled
from uvmerge.recipe.recipe import Recipe
from uvmerge.spectral.gram import Eigenpairs

from .mutation import altered, mutant

Tensors = dict[str, torch.Tensor]


class Believed(Exception):
    """A damaged file was taken for a good one."""


class Target(ABC):
    """A parser, with good files to make mutants of.

    Args:
        folder: a folder of this target's own.
    """

    name: str
    seeds: Sequence[bytes]

    @cached_property
    def structures(self) -> list[str]:
        """The good files whose content can be written as JSON, as JSON."""
        found = []
        for seed in self.seeds:
            try:
                found.append(json.dumps(yaml.safe_load(seed.decode())))  # YAML reads JSON too
            except (ValueError, TypeError, yaml.YAMLError):
                continue
        return found

    @abstractmethod
    def __init__(self, folder: Path) -> None: ...

    def input(self, dice: random.Random) -> bytes:
        """An input; the same for the same state of `dice`."""
        if self.structures and dice.random() < 0.5:
            return altered(self.structures, dice)
        return mutant(self.seeds, dice)

    @abstractmethod
    def judge(self, data: bytes) -> str:
        """What became of an input."""


def tensors(layers: int = 1) -> Tensors:
    """A small decoder with experts, an expert stack, and biases."""
    make = torch.Generator().manual_seed(3)
    shapes = {"model.embed_tokens.weight": (6, 4), "model.norm.weight": (4,)}
    for i in range(layers):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (4, 4),
            f"{layer}.self_attn.q_proj.bias": (4,),
            f"{layer}.mlp.down_proj.weight": (4, 6),
            f"{layer}.mlp.experts.gate_up_proj": (2, 4, 6),
            f"{layer}.mlp.gate.weight": (2, 4),
            f"{layer}.input_layernorm.weight": (4,),
        }
    return {name: torch.randn(shape, generator=make) for name, shape in shapes.items()}


def checkpoint_in(folder: Path, shift: float = 0.0) -> Path:
    """A checkpoint of `tensors` in one file."""
    folder.mkdir(parents=True)
    save_file({n: t + shift for n, t in tensors().items()}, folder / "model.safetensors")
    (folder / "config.json").write_bytes(CONFIGS[0])
    return folder


class _Memory:
    """A weight file in memory."""

    name = "memory/model.safetensors"

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]

    def state(self) -> list[int]:
        return [self.size]

    def close(self) -> None: ...


class Headers(Target):
    """Headers of weight files; what is accepted is read alike by the reference implementation."""

    name = "header"

    def __init__(self, folder: Path) -> None:
        entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
        other = {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]}
        empty = {"dtype": "F64", "shape": [0, 5], "data_offsets": [22, 22]}
        packed = {"dtype": "F4", "shape": [4], "data_offsets": [22, 24]}
        metadata = {"__metadata__": {"format": "pt", "made": "by hand"}}
        files: list[Any] = [
            {"a": entry, "b": other},
            metadata | {"layers.0.w": entry, "b": other, "c": empty},
            metadata | {"c": empty, "b": other, "a": entry, "d": packed},
        ]
        self.seeds = [json.dumps(each).encode() for each in files]
        self.seeds += [save(tensors()), save({"a": torch.ones(3)}, {"format": "pt"})]

    def judge(self, data: bytes) -> str:
        if data[:1] == b"{":  # the text of a header alone
            data = struct.pack("<Q", len(data)) + data + bytes(24)
        try:
            found = header.read(_Memory(data))
        except UvmergeError:
            return "refused"
        _refuse_gaps(found, len(data))
        try:
            reference = safetensors.deserialize(data)
        except safetensors.SafetensorError:
            return "accepted, by the reference not"
        theirs = {name: (each["dtype"], tuple(each["shape"])) for name, each in reference}
        if theirs != {e.name: (e.dtype, e.shape) for e in found.entries}:
            raise Believed(f"the reference reads {theirs}")
        return "accepted"


def _refuse_gaps(found: header.Header, size: int) -> None:
    position = found.data_start
    for entry in found.entries:
        if entry.offset != position:
            raise Believed(f"{entry} does not start at byte {position}")
        position += entry.size_bytes
    if position != size:
        raise Believed(f"bytes {position} to {size} belong to no tensor")


class Indexes(Target):
    """Indexes of a sharded checkpoint."""

    name = "index"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        names = list(tensors())
        halves = {"model-1.safetensors": names[:4], "model-2.safetensors": names[4:]}
        for file, mine in halves.items():
            save_file({name: tensors()[name] for name in mine}, folder / file)
        self.weight_map = {name: file for file, mine in halves.items() for name in mine}
        content = {"metadata": {"total_size": 328}, "weight_map": self.weight_map}
        self.seeds = [json.dumps(content).encode(), json.dumps(content, indent=2).encode()]
        self.seeds.append(json.dumps({"weight_map": self.weight_map}).encode())

    def judge(self, data: bytes) -> str:
        (self.folder / INDEX).write_bytes(data)
        try:
            with Checkpoint.open(self.folder) as checkpoint:
                found = {name: tensor.file for name, tensor in checkpoint.tensors.items()}
                _ = checkpoint.has_right_index, checkpoint.identity()
        except UvmergeError:
            return "refused"
        if found != self.weight_map:
            raise Believed(f"the index gives {found}")
        return "accepted"


CONFIGS = [
    json.dumps(config).encode()
    for config in (
        {"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "hidden_size": 4,
         "num_hidden_layers": 1, "num_experts": 2, "tie_word_embeddings": True, "vocab_size": 6},
        {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_hidden_layers": 1,
         "num_local_experts": 2, "intermediate_size": 3, "auto_map": {"AutoModel": "own.Own"},
         "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}},
        {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
         "text_config": {"num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 2},
         "vision_config": {"num_hidden_layers": 2, "layers": [1, [2]]}, "torch_dtype": "bfloat16"},
        {"model_type": "t5", "num_layers": 1, "num_decoder_layers": 1, "is_encoder_decoder": True,
         "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
    )
]  # fmt: skip


class Configs(Target):
    """Configs: parsed, and then everything that a plan and its notes take from them."""

    name = "config"
    seeds = CONFIGS

    def __init__(self, folder: Path) -> None:
        self.base = Checkpoint.open(checkpoint_in(folder / "base"))
        self.finetuned = Checkpoint.open(checkpoint_in(folder / "finetuned", 0.1))
        self.recipe = Recipe.parse(b"uvmerge: 1\nsteps:\n- restore: {modules: all}\n")

    def judge(self, data: bytes) -> str:
        try:
            config = bounded.parse_json(data, "config.json", "it")
        except UvmergeError:
            return "refused"
        own = copy.copy(self.finetuned)
        own.config, own.notes = config, []
        try:
            plan = planner.build(self.recipe, {"base": self.base, "finetuned": own})
        except UvmergeError:
            return "accepted, not planned"
        _ = runs_code(own), sides_of(own), list(check._named(own))
        manifest.to_bytes(manifest.build(plan, {}, {}, {}, {}))
        return "accepted"


class Recipes(Target):
    """Recipes; what is accepted is the same recipe when it is written and read again."""

    name = "recipe"

    def __init__(self, folder: Path) -> None:
        self.seeds = [path.read_bytes() for path in bundled().values()]
        self.seeds.append(
            b"uvmerge: 1\nbase: org/base@main\nfinetuned: ./sft\ndtype: bfloat16\nsteps:\n"
            b'  - restore: {top: 20%, values: base, layers: "0-3,7", include: ["*q_proj*"]}\n'
            b"  - swap:\n      rank: 3\n      exclude: [a, 'b']\n  - lines\n"
        )

    def judge(self, data: bytes) -> str:
        try:
            recipe = Recipe.parse(data)
        except UvmergeError:
            return "refused"
        again = Recipe.from_data(recipe.as_data())
        if again != recipe:
            raise Believed(f"{recipe} is written as {again}")
        return "accepted"


class OtherRecipes(Recipes):
    """Configurations of mergekit, as they are found on the Hub."""

    name = "mergekit"

    def __init__(self, folder: Path) -> None:
        self.seeds = [
            b"slices:\n- sources:\n  - model: org/a\n    layer_range: [0, 32]\n  - model: org/b\n"
            b"    layer_range: [0, 32]\nmerge_method: slerp\nbase_model: org/a\nparameters:\n"
            b"  t:\n  - filter: self_attn\n    value: [0, 0.5, 0.3, 0.7, 1]\n  - value: 0.5\n"
            b"dtype: bfloat16\n",
            b"models:\n  - model: org/a\n    parameters: {density: 0.53, weight: 0.4}\n"
            b"  - model: org/b # comment\n    parameters:\n      density: [1, 0.7, 0.1]\n"
            b"merge_method: dare_ties\nbase_model: &base org/a\ntokenizer_source: union\n",
            b"uvmerge: 1\nmodels: [a, b, c]\nsteps:\n- restore: {top: 0.2}\nmerge_method: linear\n",
            b"x: &x {weight: 0.5, density: 1e-1}\nmerge_method: ties\nbase_model: o/b\nmodules:\n"
            b"  text_decoder:\n    slices:\n    - base_model: o/b\n      sources:\n"
            b"      - {model: o/a@v1+o/l, layer_range: [0, 2], parameters: {<<: *x, weight: 1}}\n"
            b"      - {model: o/b, layer_range: [1, 3]}\n  default: {models: [{model: o/c,"
            b" parameters: *x}]}\ntokenizer: {source: union, pad_to_multiple_of: 8, tokens: {q:"
            b" {source: {kind: model_token, model: o/b, token_id: 1}, force: true}}}\nout_dtype:"
            b" float16\nchat_template: chatml\nparameters: {lambda: [1, 0.5]}\n",
        ]


class Manifests(Target):
    """Manifests: half of them with the hash that belongs to their content."""

    name = "manifest"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        files = {"config.json": manifest.file_identity(folder / "config.json")}
        record = {"k": [3], "gap": {"base": {"3": 0.182}}, "method": ["gram"],
                  "relative_change": 0.0446, "changed": True}  # fmt: skip
        content = {
            "format": 1, "recipe": {"uvmerge": 1, "steps": [{"restore": {"top": 0.2}}]},
            "inputs": {}, "settings": {"device": "cpu"}, "versions": {}, "files": files,
            "edited": {"a": record, "b[1]": {"relative_change": 0.0, "changed": False}},
            "reset": ["c"], "notes": ["a note"],
        }  # fmt: skip
        self.good = _hashed(content)
        self.seeds = [json.dumps(self.good).encode(), manifest.to_bytes(self.good)]

    def input(self, dice: random.Random) -> bytes:
        data = super().input(dice)
        if dice.random() < 0.5:
            return data
        try:
            content = json.loads(data)
            return manifest.to_bytes(_hashed(content))
        except (ValueError, RecursionError, AttributeError):
            return data

    def judge(self, data: bytes) -> str:
        (self.folder / manifest.NAME).write_bytes(data)
        manifest.made_by_uvmerge(self.folder)
        try:
            content = manifest.read_checked(self.folder)
        except UvmergeError:
            return "refused"
        assert content is not None
        if content[manifest.HASH] == self.good[manifest.HASH] and content != self.good:
            raise Believed(f"{content} has the old hash")
        problems = list(check_files.file_problems(self.folder, content))
        sorted(entry["relative_change"] for entry in content["edited"].values())
        return "accepted, files differ" if problems else "accepted"


def _hashed(content: dict[str, Any]) -> dict[str, Any]:
    return content | {manifest.HASH: manifest._own_hash(content)}


class Journals(Target):
    """Journals: half of them with the hash that belongs to each line."""

    name = "journal"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.head = {"plan": "0" * 16, "inputs": {"base": {}}, "settings": {"device": "cpu"}}
        record = {"a": {"k": [3], "relative_change": 0.0446, "changed": True}}
        digest = xxhash.xxh3_128_hexdigest(b"")
        pieces = [
            {"file": "m.safetensors", "offset": 512 * i, "size": 512, "xxh3_128": digest}
            | ({"record": record} if i else {})
            for i in range(3)
        ]
        lines = [self.head, *pieces]
        self.good = {(p["file"], p["offset"]): p for p in pieces}
        self.seeds = ["".join(map(journal.line_of, lines)).encode()]
        self.bare = [json.dumps(line, separators=(",", ":")) for line in lines]

    def input(self, dice: random.Random) -> bytes:
        if dice.random() < 0.5:
            return mutant(self.seeds, dice)
        head, *lines = [line.encode() for line in self.bare]
        changed = [altered(self.bare[1:], dice), mutant(lines, dice)]
        return b"".join(map(_signed, (head, *lines, *changed)))

    def judge(self, data: bytes) -> str:
        (self.folder / journal.JOURNAL).write_bytes(data)
        with Tree.at(self.folder) as root:
            has_head = journal.has_head(root, self.head)
            try:
                claimed = journal.read_journal(root, self.head)
            except UvmergeError:
                if has_head:
                    raise Believed("a head that was refused is the right one") from None
                return "refused"
            if len(journal.read_journal(root, self.head)) != len(claimed):
                raise Believed("what was written anew is read in another way")
        for piece in claimed.values():
            _ = piece["size"] + piece["offset"], piece["xxh3_128"], piece.get("record", {}).keys()
            sorted(entry["relative_change"] for entry in piece.get("record", {}).values())
            manifest.to_bytes(piece)
        if claimed == self.good:
            return "accepted whole"
        return "accepted in part" if claimed else "accepted without a piece"


def _signed(line: bytes) -> bytes:
    """A line of a journal with its hash, whatever it holds."""
    digest = xxhash.xxh3_64_hexdigest(line)
    return line[:-1] + b',"line_xxh3_64":"%s"}\n' % digest.encode()


class Factors(Target):
    """Kept factors: what is given back has the bits that were kept."""

    name = "factors"

    def __init__(self, folder: Path) -> None:
        self.kept = FactorFolder(folder, "cpu")
        make = torch.Generator().manual_seed(5)
        values, vectors = torch.rand(3, generator=make), torch.rand(5, 3, generator=make)
        self.pairs = Eigenpairs(values.double(), vectors.double(), 0.125)
        self.kept.keep("key", self.pairs)
        (self.file,) = folder.iterdir()
        self.seeds = [self.file.read_bytes()]

    def judge(self, data: bytes) -> str:
        self.file.unlink()  # a file that is mapped may not change
        self.file.write_bytes(data)
        found = self.kept.recall("key", 3)
        if found is None:
            return "made anew"
        for mine, theirs in (
            (self.pairs.values, found.values),
            (self.pairs.vectors, found.vectors),
        ):
            if mine.dtype != theirs.dtype or not torch.equal(mine, theirs):
                raise Believed(f"{theirs} stands for {mine}")
        if found.following != self.pairs.following:
            raise Believed(f"{found.following} stands for {self.pairs.following}")
        return "recalled"


TARGETS: tuple[type[Target], ...] = (
    Headers, Indexes, Configs, Recipes, OtherRecipes, Manifests, Journals, Factors,
)  # fmt: skip
