"""Do the bytes of a repair hold on another number of threads, under other kernels, with another torch?

    python benchmarks/bytes.py [--python PYTHON]

PYTHON is one of an environment with another torch and the same scipy. Writes
benchmarks/results/bytes.json: for each dtype, precision and setting, how many tensors and values differ
from those of one thread, and the largest relative difference of a tensor.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import about, write_result
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CONFIG = {
    "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 2,
    "num_attention_heads": 12, "num_key_value_heads": 4, "vocab_size": 512,
}  # fmt: skip
ONE = dict.fromkeys(THREADS, "1")
SETTINGS = {
    "1 thread": ONE,
    "2 threads": dict.fromkeys(THREADS, "2"),
    "4 threads": dict.fromkeys(THREADS, "4") | {"MKL_DYNAMIC": "FALSE", "OMP_DYNAMIC": "FALSE"},
    "4 matrices at once": ONE,
    "kernels for AVX2": ONE
    | {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2"},
    "kernels for SSE": ONE
    | {"MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Nehalem", "ATEN_CPU_CAPABILITY": "default"},
}  # fmt: skip


def repaired(
    pair: Path, out: Path, precision: str, name: str, python: str = sys.executable
) -> dict[str, torch.Tensor]:
    """The tensors of a repair in a process with a setting."""
    workers = "4" if "at once" in name else "1"
    words = [
        "restore", pair / "base", pair / "finetuned", out, "--top", "0.2",
        "--precision", precision, "--workers", workers, "-q",
    ]  # fmt: skip
    command = [python, "-m", "uvmerge", *map(str, words)]
    environment = {**os.environ, **SETTINGS.get(name, ONE), "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return load_file(out / "model.safetensors")


def apart(ours: dict[str, torch.Tensor], first: dict[str, torch.Tensor]) -> dict[str, Any]:
    """How far the tensors of two repairs are apart."""
    others = [name for name in first if not torch.equal(ours[name], first[name])]
    relative = [
        float((ours[n].double() - first[n].double()).norm() / first[n].double().norm())
        for n in others
    ]
    values = sum(int((ours[name] != first[name]).sum()) for name in others)
    return {"tensors": len(others), "values": values, "largest": max(relative, default=0.0)}


def versions_of(python: str) -> dict[str, str]:
    """The versions of torch and scipy in another environment."""
    code = "import scipy, torch; print(torch.__version__, scipy.__version__)"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return dict(zip(("torch", "scipy"), done.stdout.split(), strict=True))


def main() -> None:
    """Measure every setting and write the results."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--python")
    other = options.parse_args().python
    named = None if other is None else versions_of(other)
    pythons = dict.fromkeys(SETTINGS, sys.executable)
    if named is not None:
        pythons[f"torch {named['torch']}"] = other
    sys.path.insert(0, str(ROOT / "tests"))
    import zoo

    model, config, options = zoo.FAMILIES["llama"]
    zoo.FAMILIES["llama"] = (model, config, options | CONFIG)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for dtype in ("bfloat16", "float32"):
            pair = Path(name) / dtype
            zoo.pair("llama", pair, dtype=dtype)
            for precision in ("exact", "fast"):
                first: dict[str, torch.Tensor] = {}
                for setting, python in pythons.items():
                    out = pair / f"{precision} {setting}".replace(" ", "-")
                    ours = repaired(pair, out, precision, setting, python)
                    first = first or ours
                    row = {
                        "dtype": dtype,
                        "precision": precision,
                        "setting": setting,
                        "of": len(first),
                    }
                    rows.append(row | apart(ours, first))
                    print(rows[-1], flush=True)
    capability = torch.backends.cpu.get_cpu_capability()
    write_result(
        "bytes", {**about("torch", "scipy"), "capability": capability, "other": named, "rows": rows}
    )


if __name__ == "__main__":
    main()
