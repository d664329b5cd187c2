"""What a run reads of the Hub, and a push sends: requests, bytes, time, counted by a local server.

    python benchmarks/hub.py FOLDER [--seed N]

A pair of 12 layers and about 250 MB is made in FOLDER. A local server that speaks the Hub's protocol
(tests/hub_server.py) serves it to the real client, and counts: `bytes` are those it sent, `bytes_taken`
those it got. Each row is a whole process; the local run beside a push is `check`. Writes
benchmarks/results/hub.json.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from measure import Run, about, process, table, write_result
from synthetic import parser, write_pair

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from hub_server import Fault, Hub, environment, serving

import uvmerge
from uvmerge.plan.preflight import SAMPLED_MATRICES

HIDDEN, MLP, LAYERS, VOCABULARY = 896, 2432, 12, 4000
DROPS = 5


class Bench:
    """The server, and the commands that run against it."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.home, self.out = folder / "hf", folder / "out"
        self.rows: dict[str, dict[str, Any]] = {}

    def command(self, *words: str | Path, dry: bool = False) -> list[str | Path]:
        last = ["--dry-run"] if dry else []
        return [
            sys.executable,
            "-m",
            "uvmerge",
            words[0],
            *words[1:3],
            self.out,
            "-q",
            *words[3:],
            *last,
        ]

    def row(self, name: str, *words: str | Path, dry: bool = False, cold: bool = True) -> Run:
        """Run a command, and keep what it and the server counted."""
        if cold:
            shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.out, ignore_errors=True)
        return self.measured(name, self.command(*words, dry=dry))

    def measured(self, name: str, command: list[str | Path]) -> Run:
        """Run a command line, and keep what it and the server counted."""
        before = len(self.hub.log)
        run = process(command, environment(self.hub, self.home))
        log = self.hub.log[before:]
        self.rows[name] = {
            "requests": len(log), "bytes": sum(e.sent + e.head for e in log),
            "bytes_taken": sum(e.received for e in log),
            "weight_bytes": sum(self.of_tensors(e.span, e.sent) for e in log if "/cdn/" in e.path),
            "wall_s": round(run.wall_s, 2), "cpu_s": round(run.cpu_s, 2),
            "peak_bytes": run.peak_bytes,
        }  # fmt: skip
        print(name, self.rows[name], flush=True)
        return run

    def of_tensors(self, span: tuple[int, int] | None, sent: int) -> int:
        """Bytes of an answer that lie behind the header."""
        start = 0 if span is None else span[0]
        return max(0, start + sent - max(start, self.data_start))

    data_start = 0


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def header_bytes(folder: Path) -> int:
    with (folder / "model.safetensors").open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--seed", type=int, default=random.randrange(2**32))
    settings = options.parse_args()
    pair = settings.folder / "pair"
    if not pair.exists():
        write_pair(pair, LAYERS, HIDDEN, MLP, VOCABULARY)
    base, finetuned = pair / "base", pair / "finetuned"
    demo = Path(uvmerge.__file__).parent / "demo" / "data" / "part"
    models = {"org/base": base, "org/sft": finetuned, "org/demo": demo / "base"}
    reset = ("--frac", "0.25")
    with serving(models) as hub:
        bench = Bench(hub, settings.folder)
        bench.data_start = header_bytes(base)
        bench.row("reset-layers, local", "reset-layers", base, finetuned, *reset)
        expected = content(bench.out)
        bench.row("reset-layers --dry-run", "reset-layers", "org/base", finetuned, *reset, dry=True)
        bench.row("reset-layers", "reset-layers", "org/base", finetuned, *reset)
        assert content(bench.out) == expected
        bench.row("reset-layers again", "reset-layers", "org/base", finetuned, *reset, cold=False)
        print(f"seed {settings.seed}")
        draw = random.Random(settings.seed)
        small = 2 + SAMPLED_MATRICES  # requests for the header and for samples
        drops = [Fault("GET /cdn", drop_after=draw.randrange(1, 4 << 20)) for _ in range(DROPS)]
        hub.faults = [Fault("GET /cdn", times=small), *drops]
        bench.row(f"reset-layers, {DROPS} drops", "reset-layers", "org/base", finetuned, *reset)
        assert content(bench.out) == expected
        assert not any(fault.times for fault in hub.faults)
        bench.row("interpolate, local", "interpolate", base, finetuned, "--scale", "0.3")
        expected = content(bench.out)
        bench.row(
            "interpolate, both remote", "interpolate", "org/base", "org/sft", "--scale", "0.3"
        )
        assert content(bench.out) == expected
        program = [sys.executable, "-m", "uvmerge"]
        bench.measured("check", [*program, "check", bench.out])
        bench.measured("push", [*program, "push", bench.out, "org/new", "-q"])
        pushed = hub.repositories["org/new"].refs["main"].files
        assert all(b"".join(pushed[n].pieces()) == raw for n, raw in expected.items())
        bench.measured("push again", [*program, "push", bench.out, "org/new", "-q"])
        bench.data_start = header_bytes(demo / "base")
        bench.row(
            "demo, --dry-run", "reset-layers", "org/demo", demo / "finetuned", *reset, dry=True
        )
    write_result("hub", report(bench.rows, settings.seed, base, demo / "base"))


def report(rows: dict[str, dict[str, Any]], seed: int, base: Path, demo: Path) -> dict[str, Any]:
    """The result file, and a table on stdout."""
    whole = (base / "model.safetensors").stat().st_size
    figures = ("requests", "bytes", "weight_bytes", "bytes_taken", "cpu_s", "peak_bytes")
    print(table([("command", *figures), *((n, *(r[f] for f in figures)) for n, r in rows.items())]))
    result = {
        **about("torch", "uvmerge", "huggingface_hub"),
        "base_bytes": whole, "demo_base_bytes": (demo / "model.safetensors").stat().st_size,
        "seed": seed, "rows": rows,
        "reset_layers_share": round(rows["reset-layers"]["bytes"] / whole, 4),
        "dry_run_share": round(rows["reset-layers --dry-run"]["bytes"] / whole, 6),
        "drops_over_undisturbed": round(
            rows[f"reset-layers, {DROPS} drops"]["bytes"] / rows["reset-layers"]["bytes"], 4
        ),
        "peak_over_local_bytes": {
            "reset-layers": rows["reset-layers"]["peak_bytes"]
            - rows["reset-layers, local"]["peak_bytes"],
            "interpolate": rows["interpolate, both remote"]["peak_bytes"]
            - rows["interpolate, local"]["peak_bytes"],
            "push": rows["push"]["peak_bytes"] - rows["check"]["peak_bytes"],
        },
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    main()
