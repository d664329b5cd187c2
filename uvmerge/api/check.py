"""`uvmerge check`: read an output again and compare it with its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..checkpoint.anatomy import Anatomy, tensor_of
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPE_BITS, FLOATS
from ..checkpoint.revocabulary import vocabulary_tensors
from ..checkpoint.roles import FINETUNED, mirrored
from ..checkpoint.stacks import layer_counts
from ..engine.settings import Control
from ..errors import InputRefused, ProblemsFound, UsageError, listed
from ..output import manifest
from ..output.places import Reference, is_store
from ..output.sidefiles import module_folders
from ..plan import reads
from ..text import expanded, folder_meant, inert, two_lines
from . import check_store, fetching
from .check_adapter import adapter_problems, is_adapter_output
from .check_files import file_problems
from .opening import open_checkpoint, refuse_changed_inputs
from .settings import OpenSettings, Watch, shows

PANEL_BYTES = 8 << 20
AGAIN = "Do not use this checkpoint: make it again."
OF_OTHERS = f"uvmerge did not write this folder (it has no {manifest.NAME}): get it again."


class Checked(dict[str, Any]):
    """What `check` returns: JSON-able data that shows itself in a terminal."""

    def __repr__(self) -> str:
        found = f"{self['checkpoint']}: no problems found, hashes: {self.get('hashes')}"
        return two_lines("Checked", found, f"keys {', '.join(self)}")

    def __str__(self) -> str:
        said = (f"{key}: {inert(value)}" for key, value in self.items() if key != "sha256")
        sums = (f"{digest}  {inert(name)}" for name, digest in self.get("sha256", {}).items())
        return "\n".join([*said, *sums, "ok"])


@shows(OpenSettings, watched=False)
def check(
    out: Reference,
    *,
    load: bool = False,
    against: Reference | None = None,
    sha256: bool = False,
    **settings: Any,
) -> Checked:
    """Check a checkpoint that uvmerge wrote; of another checkpoint, what needs no manifest.

    `check` verifies that headers and index agree, that sizes and hashes are those of
    `uvmerge.json`, that side files are there, and that edited tensors are finite and hold no zeros
    that no edit made.

    Args:
        out: the folder of the checkpoint, or its URL in an object store, from where it is fetched into
            the cache as a whole.
        load: also build the model in transformers and run one forward pass.
        against: the fine-tuned checkpoint. `check` then also verifies that dtypes and shapes are
            the same unless planned, and that every tensor that was not planned is byte-identical.
            Of an adapter, the model that it is for, which has to have the modules.
        sha256: also return the sha256 of every file, as the Hub shows it.
        settings: `allow_pickle`, as in docs/options.md, for `against`.

    Returns:
        What was checked and found, as JSON-able data.

    Raises:
        ProblemsFound: `out` has problems, which the error lists; exit code 4.
        InputRefused: `out` is no folder or prefix with a checkpoint, or `against` cannot be read.
        UsageError: `load` of an `out` in a store; `against` is the base of the output, or another input that it does not mirror.
    """
    opening = OpenSettings.read(settings)
    if load and is_store(out):
        do = "Copy it to a folder on this disk first."
        raise UsageError("--load", "loads no model from an object store", do)
    if is_store(out):
        fetched = check_store.fetched(out)
        folder, label, shown = fetched.folder, fetched.label, str(out)
    else:
        folder = expanded(out)
        label, shown = folder.resolve().name, str(folder)
    _refuse_no_checkpoint(folder)
    problems: list[str] = []
    report = Checked(checkpoint=label)
    if load and is_adapter_output(folder):
        what = "loads a whole model, OUT is an adapter"
        raise UsageError("--load", what, "`uvmerge merge-lora` writes a whole model.")
    finetuned = None
    if against is not None:  # of one on the Hub, nothing but what is compared is fetched
        finetuned = open_checkpoint(against, opening, whole=False, by_ranges=True)
    try:
        with finetuned or nullcontext():
            if is_adapter_output(folder):
                problems += adapter_problems(folder, finetuned, report)
            else:
                _check_checkpoint(folder, finetuned, report, problems)
    except InputRefused as refused:
        what = f"{refused.where}: {refused.what}".rstrip(".").replace(str(folder), shown)
        problems.append(f"{what}. {refused.do}".strip())
    if load and not problems:
        problems += _load(folder, report)
    if sha256:
        report["sha256"] = {p.name: _sha256(p) for p in sorted(folder.iterdir()) if p.is_file()}
    if problems:
        raise ProblemsFound(shown, problems, AGAIN if _is_output(folder) else OF_OTHERS)
    return report


def _check_checkpoint(
    folder: Path, finetuned: Checkpoint | None, report: Checked, problems: list[str]
) -> None:
    """Check a whole checkpoint; adds to `problems`, and what was checked to `report`."""
    with Checkpoint.open(folder) as checkpoint:
        content = manifest.read_checked(folder)
        report |= {"tensors": len(checkpoint.tensors), "bytes": checkpoint.size_bytes}
        report["hashes"] = (
            f"{len(content['files'])} files as written"
            if content
            else "not checked: uvmerge did not write this folder, which has no manifest"
        )
        if finetuned is not None and content is not None:
            _refuse_other_input(finetuned, content)
        problems += file_problems(folder, content)
        problems += _has_config(folder) if content is not None else ()
        problems += _named(checkpoint)
        problems += _values(checkpoint, content)
        if finetuned is not None:
            changed = _changed(checkpoint, finetuned, content, problems)
            report["changed"] = len(changed)
            report["compared"] = f"{len(checkpoint.tensors)} tensors with {finetuned.label}"
        both = {"OUT": checkpoint, "finetuned": finetuned}
        refuse_changed_inputs({role: each for role, each in both.items() if each is not None})


def _is_output(folder: Path) -> bool:
    return (folder / manifest.NAME).exists()


def _refuse_no_checkpoint(folder: Path) -> None:
    """Refuse what cannot be an output: no folder, or one with neither manifest nor weights."""
    do = "Name a folder that uvmerge wrote."
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        meant = "" if folder.exists() else folder_meant(folder)
        raise InputRefused(folder, f"{what}; no folder can be checked", meant or do)
    endings = (".safetensors", ".index.json", ".bin", ".pt")
    if not _is_output(folder) and not any(p.name.endswith(endings) for p in folder.iterdir()):
        what = f"is no output of uvmerge: it has neither {manifest.NAME} nor weights"
        raise InputRefused(folder, what, do)


def _refuse_other_input(against: Checkpoint, content: dict[str, Any]) -> None:
    """Refuse to compare with another input than the one that the output mirrors."""
    role = manifest.role_of(against, content)
    if role is not None and role != (wanted := mirrored(content["inputs"])):
        raise UsageError(
            "--against",
            f"{against.label} is the {role} of this output",
            f"--against wants {wanted.upper()}, whose tensors the output keeps.",
        )


def _has_config(folder: Path) -> Iterator[str]:
    if not (folder / "config.json").is_file():
        yield "config.json is missing"


def _named(checkpoint: Checkpoint) -> Iterator[str]:
    """The modules that `modules.json` names and the Python files of `auto_map` are there."""
    names = checkpoint.side_names()
    folders = {name.rpartition("/")[0] for name in names}
    for folder in sorted(module_folders(checkpoint) - {""} - folders):
        yield f"{folder}, which modules.json names, is missing"
    auto_map = checkpoint.config.get("auto_map")
    found = auto_map.values() if isinstance(auto_map, dict) else ()
    classes = [each for value in found for each in (value if isinstance(value, list) else [value])]
    files = {str(each).rpartition(".")[0] for each in classes if each and "--" not in str(each)}
    for file in sorted(files - {""}):
        if f"{file.replace('.', '/')}.py" not in names:
            yield f"{file}.py, which auto_map names, is missing"


def _values(checkpoint: Checkpoint, content: dict[str, Any] | None) -> Iterator[str]:
    """Problems of values: NaN or Inf in edited tensors, and zeros that the manifest lacks.

    Without a manifest every tensor is looked at.
    """
    import torch

    from ..engine.reading import TORCH_DTYPES

    edited: dict[str, list[dict[str, Any]]] = {}
    for label, entry in (content or {"edited": {}})["edited"].items():
        edited.setdefault(tensor_of(label), []).append(entry)
    not_finite, zeros = [], []
    for tensor in checkpoint.tensors.values():
        if tensor.dtype not in FLOATS or (content is not None and tensor.name not in edited):
            continue
        finite, zero = True, True
        for panel in _panels(checkpoint, tensor):
            values = torch.frombuffer(panel, dtype=TORCH_DTYPES[tensor.dtype])
            finite = finite and bool(values.isfinite().all())
            zero = zero and not bool(values.any())
        if not finite:
            not_finite.append(tensor.name)
        if zero and not all(e.get("zero") for e in edited.get(tensor.name, ())):
            zeros.append(tensor.name)
    if not_finite:
        yield f"NaN or Inf in {listed(not_finite, 'tensor')}"
    if zeros:
        yield f"nothing but zeros in {listed(zeros, 'edited tensor')}"


def _changed(
    checkpoint: Checkpoint,
    finetuned: Checkpoint,
    content: dict[str, Any] | None,
    problems: list[str],
) -> list[str]:
    """Names of tensors whose bytes differ from the fine-tuned ones; adds to `problems`."""
    left = _of_another_vocabulary(checkpoint, content)
    ours = {name: t for name, t in checkpoint.tensors.items() if name not in left}
    theirs = {name: t for name, t in finetuned.tensors.items() if name not in left}
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        problems.append(
            f"tensor names differ from the fine-tuned checkpoint's: {listed(odd, 'tensor')}"
        )
    dtype = content and content["recipe"].get("dtype")
    both = [ours[name] for name in ours if name in theirs]
    shapes = [t.name for t in both if t.shape != theirs[t.name].shape]
    dtypes = [t.name for t in both if t.dtype != theirs[t.name].dtype]
    if shapes:
        problems.append(
            f"shapes differ from the fine-tuned checkpoint's: {listed(shapes, 'tensor')}"
        )
    if dtypes and not dtype:
        problems.append(
            f"dtypes differ from the fine-tuned checkpoint's: {listed(dtypes, 'tensor')}"
        )
    comparable = [
        t for t in both if t.shape == theirs[t.name].shape and (dtype or t.name not in dtypes)
    ]
    _fetch(finetuned, [theirs[t.name] for t in comparable])
    changed = [t.name for t in comparable if _differs(checkpoint, t, finetuned, theirs[t.name])]
    if content is not None:
        edited = {tensor_of(label): False for label in content["edited"]}
        for label, entry in content["edited"].items():
            edited[tensor_of(label)] |= entry["changed"]
        planned = {name for name, moved in edited.items() if moved and name not in left}
        allowed = planned | set(content["reset"])
        if stray := [name for name in changed if name not in allowed]:
            problems.append(f"changed without being planned: {listed(stray, 'tensor')}")
        same = {t.name for t in comparable} - set(changed)
        if still := sorted(planned & same - set(content["reset"])):
            problems.append(
                f"edited according to the manifest, yet unchanged: {listed(still, 'tensor')}"
            )
    return changed


def _fetch(finetuned: Checkpoint, tensors: list[Tensor]) -> None:
    """Fetch what is compared of a checkpoint on the Hub."""
    read = reads.of_tensors(FINETUNED, tensors)
    wanted = fetching.to_fetch(read, {FINETUNED: finetuned})
    fetching.fetch(wanted, Watch(quiet=True).shown, Control())


def _of_another_vocabulary(checkpoint: Checkpoint, content: dict[str, Any] | None) -> set[str]:
    """Names of tensors whose rows, or whose being there, hang on a rule for the vocabulary."""
    if content is None:
        return set()
    heads = (each.get("head") for each in content["inputs"].values() if isinstance(each, dict))
    found = {head for head in heads if isinstance(head, str)}
    if "tokenizer" in content["recipe"]:
        found |= {t.name for several in vocabulary_tensors(checkpoint).values() for t in several}
    return found


def _differs(one: Checkpoint, tensor: Tensor, other: Checkpoint, twin: Tensor) -> bool:
    """Whether two tensors of one shape differ, in the dtype of `tensor`."""
    theirs: Iterator[bytes | bytearray | memoryview] = _panels(other, twin)
    panel_bytes = PANEL_BYTES
    if tensor.dtype != twin.dtype:
        from ..engine.reading import converted

        theirs = (converted(panel, twin.dtype, tensor.dtype) for panel in theirs)
        panel_bytes = PANEL_BYTES * DTYPE_BITS[tensor.dtype] // DTYPE_BITS[twin.dtype]
    return any(a != b for a, b in zip(_panels(one, tensor, panel_bytes), theirs, strict=True))


def _panels(
    checkpoint: Checkpoint, tensor: Tensor, panel_bytes: int = PANEL_BYTES
) -> Iterator[bytearray]:
    for start in range(0, tensor.size_bytes, panel_bytes):
        count = min(panel_bytes, tensor.size_bytes - start)
        yield checkpoint.read(tensor.file, tensor.offset + start, count)


def _load(folder: Path, report: dict[str, Any]) -> Iterable[str]:
    """Problems of loading the model and of one forward pass; adds what was run to `report`."""
    from ..models.trial import trial

    with Checkpoint.open(folder) as checkpoint:
        depths = layer_counts(stack.depth for stack in Anatomy(checkpoint).main)
    tried = trial(folder)
    report["loaded"] = tried.loaded
    if tried.forward is not None:
        report["loaded"] += f", {depths}"
        report["forward"] = tried.forward
    return tried.problems


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(PANEL_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
