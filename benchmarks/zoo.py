"""Every family that transformers can build small: what it is, how uvmerge reads and edits it.

    python benchmarks/zoo.py CACHE [--only FAMILY ...] [--results FILE [--edits]]
    python benchmarks/zoo.py CACHE --ties

Each family is built from a shrunk configuration and saved in CACHE/FAMILY as bfloat16, with what
its module tree tells of every tensor in truth.json beside the weights; families that CACHE holds
are not built again. FILE gets uvmerge's reading compared with that truth, family by family, and
with --edits what restore, reset-layers and interpolate do to each. What cannot be built is named
with its reason. --ties writes the table of tied names that uvmerge keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from families.ties import Ties

sys.path.insert(0, str(Path(__file__).resolve().parent))

TABLES = Path(__file__).resolve().parent.parent / "uvmerge" / "checkpoint"


def judged(cache: Path, outcome: dict[str, str], *, with_edits: bool) -> dict[str, Any]:
    """How each built family is read and, if asked for, edited."""
    from families.building import SECONDS, within
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
        "families": {name: brief(family) for name, family in found.items()},
    }


def brief(family: dict[str, Any]) -> dict[str, Any]:
    """What a family's results say besides that all is right."""
    wrong = {name: said for name, said in family.get("edits", {}).items() if said != "right"}
    kept = {key: family[key] for key in ("reason", "disagreements", "notes") if family.get(key)}
    return {"status": family["status"]} | kept | ({"edits": wrong} if wrong else {})


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Numbers of families by status, of tensors by category, of edits that came right."""
    agreements: Counter[str] = Counter()
    disagreements: Counter[str] = Counter()
    done: dict[str, Counter[str]] = {}
    for family in found.values():
        agreements.update(family.get("agreements", {}))
        for disagreement in family.get("disagreements", ()):
            disagreements[disagreement["category"]] += disagreement["tensors"]
        for name, said in family.get("edits", {}).items():
            word = "refused" if said.startswith("refused") else "wrong"
            done.setdefault(name, Counter())["right" if said == "right" else word] += 1
    categories = sorted({*agreements, *disagreements})
    return {
        "built": len(found),
        "status": dict(Counter(family["status"] for family in found.values())),
        "tensors": {c: {"agree": agreements[c], "disagree": disagreements[c]} for c in categories},
        "edits": {name: dict(counts) for name, counts in done.items()},
    }


def ties(only: list[str]) -> dict[str, Ties]:
    """The ties of every family, by its architecture."""
    from families.building import SECONDS, within
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
    parser.add_argument(
        "--ties", action="store_true", help="write tie_table_N.json and nothing else"
    )
    options = parser.parse_args()
    quiet()
    if options.ties:
        from families.ties import as_text, table
        from transformers import __version__

        path = TABLES / f"tie_table_{__version__.partition('.')[0]}.json"
        path.write_text(as_text(table(ties(options.only), __version__)), encoding="utf-8")
        return
    from families.building import build

    start = time.monotonic()
    options.cache.mkdir(parents=True, exist_ok=True)
    outcome = build(options.cache, options.only)
    if not options.only:
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
