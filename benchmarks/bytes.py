"""Do the bytes of a repair hold on another number of threads, and under other kernels of linear algebra?

`python benchmarks/bytes.py` writes benchmarks/results/bytes.json: for each dtype, precision and setting, how
many tensors and values differ from those of one thread, and the largest relative difference of a tensor.
"""

from __future__ import annotations

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


def repaired(pair: Path, out: Path, precision: str, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a repair in a process with a setting."""
    workers = "4" if "at once" in name else "1"
    words = [
        "restore", pair / "base", pair / "finetuned", out, "--top", "0.2",
        "--precision", precision, "--workers", workers, "-q",
    ]  # fmt: skip
    command = [sys.executable, "-m", "uvmerge", *map(str, words)]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **SETTINGS[name]}
    )
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


def main() -> None:
    """Measure every setting and write the results."""
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
                for setting in SETTINGS:
                    out = pair / f"{precision} {setting}".replace(" ", "-")
                    ours = repaired(pair, out, precision, setting)
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
    write_result("bytes", {**about("torch", "scipy"), "capability": capability, "rows": rows})


if __name__ == "__main__":
    main()
