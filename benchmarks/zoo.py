"""Every family that transformers can build small: what it is, how uvmerge reads and edits it.

    python benchmarks/zoo.py CACHE [--only FAMILY ...] [--results FILE [--edits]]
    python benchmarks/zoo.py CACHE --ties

Each family is built from a shrunk configuration and saved in CACHE/FAMILY as bfloat16, with what its
module tree tells of every tensor in truth.json beside the weights; families that CACHE holds are not
built again. FILE gets uvmerge's reading compared with that truth, family by family, and with --edits
what restore, reset-layers and interpolate do to each. What cannot be built is named with its reason.
--ties writes the table of tied names that uvmerge keeps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from families.configs import Family
    from families.ties import Ties

sys.path.insert(0, str(Path(__file__).resolve().parent))

TIES = Path(__file__).resolve().parent.parent / "uvmerge" / "checkpoint" / "tie_table.json"
SECONDS = 60  # the most that one family may take for one thing
PARAMETERS = 12_000_000  # the most that one family may have


def build(cache: Path, only: list[str]) -> dict[str, str]:
    """Build the families that the cache does not hold yet; name -> "built" or why not."""
    from families.configs import families

    outcome: dict[str, str] = {}
    for family in families():
        folder = cache / family.name
        if only and family.name not in only:
            continue
        if not (folder / "truth.json").exists():
            _, reason = within(SECONDS, lambda family=family, folder=folder: save(family, folder))
            if reason:
                shutil.rmtree(folder, ignore_errors=True)
                print(f"{family.name}: {reason}", file=sys.stderr)
        outcome[family.name] = "built" if (folder / "truth.json").exists() else str(reason)
    return outcome


def save(family: Family, folder: Path) -> None:
    """Build one family, and save it with its truth."""
    import torch
    import transformers
    from families.configs import small_config
    from families.truth import truth

    model_class = getattr(transformers, family.architecture)
    with (
        contextlib.suppress(NotImplementedError),
        torch.device("meta"),
    ):  # some compute as they build
        size = sum(p.numel() for p in model_class(small_config(family)).parameters())
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


def judged(cache: Path, outcome: dict[str, str], *, with_edits: bool) -> dict[str, Any]:
    """The results: how each built family is read and, if asked for, edited."""
    from families.edits import edits
    from families.reading import compare

    built = [name for name, reason in outcome.items() if reason == "built"]
    found: dict[str, dict[str, Any]] = {}
    for name in built:
        found[name] = compare(cache / name)
        if with_edits:
            own, reason = within(3 * SECONDS, lambda name=name: edits(cache / name))
            found[name]["edits"] = own or {"all": reason}
            wrong = {k: v for k, v in found[name]["edits"].items() if v != "right"}
            print(name, found[name]["status"], wrong or "", file=sys.stderr)
    return summary(found) | {
        "not_built": {name: reason for name, reason in outcome.items() if reason != "built"},
        "families": found,
    }


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Numbers of families by status, of tensors that agree by category, of edits that came right."""
    agreements: Counter[str] = Counter()
    disagreements: Counter[str] = Counter()
    done: dict[str, Counter[str]] = {}
    for family in found.values():
        agreements.update(family.get("agreements", {}))
        for disagreement in family.get("disagreements", ()):
            disagreements[disagreement["category"]] += disagreement["tensors"]
        for name, said in family.get("edits", {}).items():
            done.setdefault(name, Counter())["right" if said == "right" else "not"] += 1
    categories = sorted({*agreements, *disagreements})
    return {
        "built": len(found),
        "status": dict(Counter(family["status"] for family in found.values())),
        "tensors": {c: {"agree": agreements[c], "disagree": disagreements[c]} for c in categories},
        "edits": {name: dict(counts) for name, counts in done.items()},
    }


def ties(only: list[str]) -> dict[str, Ties]:
    """The ties of every family, by its architecture."""
    from families.configs import families
    from families.ties import ties_of

    found: dict[str, Ties] = {}
    for family in families():
        if family.even or (only and family.name not in only):
            continue
        own, reason = within(SECONDS, lambda family=family: ties_of(family))
        if own is None:
            print(f"{family.name}: {reason}", file=sys.stderr)
        else:
            found[family.architecture] = own | found.get(family.architecture, own)
    return found


def within(seconds: int, work: Callable[[], Any]) -> tuple[Any, str | None]:
    """(what `work` returned, or None; why it failed, in a sentence, or None)."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        return work(), None
    except Exception as error:  # a family that fails is a finding, not an end
        text = " ".join(str(error).split())
        return None, f"{type(error).__name__}: {text[-300:]}"
    finally:
        signal.alarm(0)


def quiet() -> None:
    """No network, one thread, and no word from transformers."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="FAMILY")
    parser.add_argument("--results", type=Path, metavar="FILE")
    parser.add_argument("--edits", action="store_true", help="run edits on each family, too")
    parser.add_argument("--ties", action="store_true", help=f"write {TIES.name} and nothing else")
    options = parser.parse_args()
    quiet()
    if options.ties:
        from families.ties import as_text, table
        from transformers import __version__

        TIES.write_text(as_text(table(ties(options.only), __version__)), encoding="utf-8")
        return
    start = time.monotonic()
    options.cache.mkdir(parents=True, exist_ok=True)
    outcome = build(options.cache, options.only)
    (options.cache / "families.json").write_text(json.dumps(outcome, indent=1))
    built = sum(reason == "built" for reason in outcome.values())
    print(f"{built} built, {len(outcome) - built} not, {time.monotonic() - start:.0f} s")
    if options.results:
        from measure import about

        result = about("torch", "transformers", "uvmerge")
        result |= judged(options.cache, outcome, with_edits=options.edits)
        options.results.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({key: result[key] for key in ("built", "status", "tensors", "edits")}))


if __name__ == "__main__":
    main()
