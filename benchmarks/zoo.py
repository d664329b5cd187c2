"""Every family that transformers can build small, and what its module tree says of its tensors.

    python benchmarks/zoo.py CACHE [--only FAMILY ...]

Each family is built from a shrunk configuration and saved in CACHE/FAMILY as bfloat16, with a
truth.json beside the weights. What cannot be built is named with its reason in CACHE/families.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

TIES = Path(__file__).resolve().parent.parent / "uvmerge" / "checkpoint" / "tie_table.json"
SECONDS = 60  # the most that one family may take
PARAMETERS = 8_000_000  # the most that one family may have


def build(cache: Path, only: list[str]) -> dict[str, str]:
    """Build the families that the cache does not hold yet; name -> "built" or why not."""
    from families.configs import families

    outcome: dict[str, str] = {}
    for family in families():
        if only and family.name not in only:
            continue
        folder = cache / family.name
        if not (folder / "truth.json").exists():
            reason = _within(SECONDS, lambda family=family, folder=folder: _build(family, folder))
            if reason:
                shutil.rmtree(folder, ignore_errors=True)
                outcome[family.name] = reason
                print(f"{family.name}: {reason}", file=sys.stderr)
                continue
        outcome[family.name] = "built"
    return outcome


def _build(family: Any, folder: Path) -> None:
    import torch
    import transformers
    from families.configs import small_config
    from families.truth import truth

    model_class, config = getattr(transformers, family.architecture), small_config(family)
    with torch.device("meta"):
        size = sum(p.numel() for p in model_class(config).parameters())
    if size > PARAMETERS:
        raise ValueError(f"{size:,} parameters remain")
    torch.manual_seed(0)
    model = model_class(small_config(family)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter += 0.02 * torch.randn(parameter.shape)
    model.to(torch.bfloat16)
    model.save_pretrained(folder)
    found = {"family": family.name, "model_type": family.model_type} | truth(model, folder)
    (folder / "truth.json").write_text(json.dumps(found, indent=1))


def ties(only: list[str]) -> dict[str, Any]:
    """The ties of every family, by its architecture."""
    from families.configs import families
    from families.ties import ties_of

    found: dict[str, Any] = {}
    for family in families():
        if family.even or (only and family.name not in only):
            continue

        def look(family: Any = family) -> None:
            own = ties_of(family)
            found[family.architecture] = own | found.get(family.architecture, own)

        if reason := _within(SECONDS, look):
            print(f"{family.name}: {reason}", file=sys.stderr)
    return found


def _within(seconds: int, work: Any) -> str | None:
    """Run `work`; why it failed, in a sentence, or None."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        work()
    except Exception as error:  # a family that fails is a finding, not an end
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text[-300:]}"
    finally:
        signal.alarm(0)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument(
        "--ties", action="store_true", help="write uvmerge/checkpoint/tie_table.json"
    )
    options = parser.parse_args()
    _quiet()
    start = time.monotonic()
    if options.ties:
        from families.ties import as_text, table
        from transformers import __version__

        TIES.write_text(as_text(table(ties(options.only), __version__)), encoding="utf-8")
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    outcome = build(options.cache, options.only)
    failed = {name: reason for name, reason in outcome.items() if reason != "built"}
    if not options.only:
        (options.cache / "families.json").write_text(json.dumps(outcome, indent=1))
    print(
        f"{len(outcome) - len(failed)} built, {len(failed)} not, {time.monotonic() - start:.0f} s"
    )


def _quiet() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


if __name__ == "__main__":
    main()
