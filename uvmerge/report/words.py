"""What a comparison found, in sentences: each with the numbers behind it, none calling chance a finding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from ..errors import counted
from ..measure import judgement
from ..measure.findings import Compared, Entry, Findings, with_measures
from ..measure.measures import Measures, Turn
from ..measure.null import ROUNDING
from ..text import brief
from .format import number, percent

Found = tuple[Entry, Measures]

RAZOR = (
    "How far weights moved does not by itself predict what a model forgets (RL's Razor, arXiv"
    " 2509.04259): evaluate both checkpoints on the tasks that matter."
)


def headline(findings: Findings, *, beside_table: bool = False) -> list[str]:
    """Sentences for the top of the page and for the terminal, the verdict first, most telling first.

    Args:
        beside_table: leave out the means, which a table shows.
    """
    if not findings.compared:
        return [f"Nothing was compared with {brief(findings.base)}."]
    last = findings.compared[-1]
    if len(findings.compared) == 1:
        sentences = [_verdict(findings.base, last), *_interpretation(last, beside_table)]
    else:
        strays = [c for c in findings.compared[:-1] if c.verdict == "unrelated"]
        sentences = [_verdicts(findings), *(_verdict(findings.base, c) for c in strays)]
        sentences += _series(findings)
        if last.verdict != "identical":
            verdict = _verdict(findings.base, last)
            sentences += [f"The last checkpoint: {verdict}", *_interpretation(last, beside_table)]
        sentences += _turning_back(findings)
    sentences += _behaviour(findings)
    return [*sentences, RAZOR] if findings.verdict == "related" else sentences


def _related(compared: Compared) -> list[Found]:
    return with_measures(compared.related_matrices)


# --- the verdict ---------------------------------------------------------------------------------


def _verdict(base: str, compared: Compared) -> str:
    name, base = brief(compared.label), brief(base)
    measured, chance = len(compared.measured), len(compared.unrelated_matrices)
    identical = sum(entry.state == "identical" for entry in compared.entries)
    if not compared.entries and not compared.others:
        return f"Nothing of {name} could be compared with {base}: they share no tensor."
    if compared.verdict == "unrelated":
        return (
            f"{name} is unrelated to {base}: in {chance} of {_matrices(measured)} that"
            f" {'was' if measured == 1 else 'were'} measured, the two have no more in common than"
            " independent matrices, so their angles and values are not interpreted."
            f"{_counts(compared)} Check that this is the base, and that the names fit."
        )
    if compared.verdict == "identical":
        return f"{name} is identical to {base}: no tensor that was compared changed.{_counts(compared)}"
    if measured:
        cosines = [found.change.cosine for _, found in _related(compared)]
        cosine = median([c for c in cosines if math.isfinite(c)] or [math.nan])
        text = (
            f"{name} is related to {base}: the median cosine of their matrices is"
            f" {number(cosine, 6)} (about 0 for independent ones)."
        )
    elif identical:
        text = f"All matrices of {name} that could be compared are identical to those of {base}."
    else:
        text = f"No matrix of {name} could be measured against {base}."
    return text + _counts(compared) + _strangers(chance, measured)


def _matrices(count: int) -> str:
    return counted(count, "matrix")


def _counts(compared: Compared) -> str:
    """How much was compared, what did not change, and what could not be compared."""
    entries, others = compared.entries, compared.others
    same = sum(entry.state == "identical" for entry in entries)
    broken = sum(entry.state == "nonfinite" for entry in entries)
    unlike = sum(other.relative is None for other in others)
    parts = [f"{_matrices(len(entries))} and {counted(len(others), 'other tensor')} were compared"]
    identical = f"{_matrices(same)} {'is' if same == 1 else 'are'}" if same else "no matrix is"
    parts.append(f"{identical} identical")
    if broken + unlike:
        reasons = [
            f"{_matrices(broken)} with NaN or Inf" if broken else "",
            f"{counted(unlike, 'other tensor')} of another shape or kind" if unlike else "",
        ]
        parts.append("could not be compared: " + ", ".join(filter(None, reasons)))
    else:
        parts.append("none had to be left out")
    return f" {'; '.join(parts)}."


def _strangers(chance: int, measured: int) -> str:
    if not chance:
        return ""
    return (
        f" In {chance} of {_matrices(measured)} the two have no more in common than independent"
        " matrices; what follows leaves them out."
    )


def _verdicts(findings: Findings) -> str:
    count, base = len(findings.compared), brief(findings.base)
    if findings.verdict == "identical":
        return f"{_all(count)} checkpoints are identical to {base}: no tensor that was compared changed."
    by_verdict = {
        verdict: [brief(c.label) for c in findings.compared if c.verdict == verdict]
        for verdict in ("unrelated", "identical", "related")
    }
    if len(by_verdict["related"]) == count:
        return f"{_all(count)} checkpoints are related to {base}."
    said = [f"{verdict}: {', '.join(who)}" for verdict, who in by_verdict.items() if who]
    return f"Of {count} checkpoints compared with {base}, {'; '.join(said)}."


def _all(count: int) -> str:
    return "Both" if count == 2 else f"All {count}"


# --- what one checkpoint shows -------------------------------------------------------------------


def _interpretation(compared: Compared, beside_table: bool) -> list[str]:
    if compared.verdict != "related":
        return []
    moving = [(e, m) for e, m in _related(compared) if e.relative > 0]
    sentences = []
    if moving:
        most = _most(moving) if compared.says_where else ""
        means = [] if beside_table else [most, _values(moving), _inside(moving)]
        turned = [] if beside_table else [_turned(moving)]
        sentences += [_moved(moving), *turned, *_doubts(moving), *means]
        sentences += [_gaps(moving), _intruders(moving)]
    elif compared.measured:
        sentences.append("No measured matrix moved.")
    sentences.append(_others(compared))
    return [sentence for sentence in sentences if sentence]


def _moved(moving: Sequence[Found]) -> str:
    sizes = [entry.relative for entry, _ in moving if math.isfinite(entry.relative)]
    if not sizes:
        return "The base's matrices are zero, so the change has no relative size."
    if len(sizes) == 1:
        text = f"The weights moved by {percent(sizes[0])} of the base's norm"
    else:
        text = (
            f"The weights moved by {percent(median(sizes))} of the base's norm in the median matrix"
            f" ({percent(min(sizes))} to {percent(max(sizes))})"
        )
    rounding = [entry for entry, _ in moving if entry.is_rounding]
    if rounding:
        how = ", ".join(
            f"{percent(ROUNDING[dtype])} for {dtype}"
            for dtype in dict.fromkeys(entry.dtype for entry in rounding)
        )
        where = (
            "that" if len(moving) == 1 else f"in {len(rounding)} of {_matrices(len(moving))} that"
        )
        text += f"; {where} is no more than storage makes ({how}), and may come from rounding alone"
    return text + "."


def _turned(moving: Sequence[Found]) -> str:
    parts = []
    for side in ("left", "right"):
        turns: list[Turn] = [getattr(found, side) for _, found in moving]
        telling = [turn for turn in turns if turn.is_telling]
        if telling:
            angle = _mean(turn.mean for turn in telling)
            expected = _mean(turn.chance.mean for turn in telling)
            parts.append(f"{side} ones by {number(angle)} rad (independent: {number(expected)})")
    return f"Leading singular vectors turned, on average: {', '.join(parts)}." if parts else ""


def _doubts(moving: Sequence[Found]) -> list[str]:
    """Where angles are no finding."""
    if not any(found.k for _, found in moving):
        return ["No singular vectors were compared: k is 0."]
    turns = [turn for _, found in moving for turn in (found.left, found.right)]
    silent = sum(not turn.chance.says_something for turn in turns)
    noise = sum(turn.is_chance for turn in turns)
    sentences = []
    if silent:
        sentences.append(
            f"On {silent} of {counted(2 * len(moving), 'side')} the angles say nothing: k is 0 or so"
            " large that the leading vectors must fill most of their space."
        )
    if noise:
        sentences.append(
            f"On {noise} of {counted(2 * len(moving), 'side')} the leading vectors are no nearer to"
            " the base's than independent ones: no finding, and not in the mean."
        )
    return sentences


def _most(moving: Sequence[Found]) -> str:
    """Where vectors turned most and least, by module, role and layer."""
    angles = [(entry, found.telling_angle) for entry, found in moving]
    told = [(entry, angle) for entry, angle in angles if angle is not None]
    kinds: dict[str, Callable[[Entry], str | None]] = {
        "module": lambda entry: entry.module,
        "role": lambda entry: entry.role,
        "layer": lambda entry: None if entry.layer is None else f"layer {entry.layer}",
    }
    parts, alike = [], []
    for kind, key in kinds.items():
        groups: dict[str, list[float]] = {}
        for entry, angle in told:
            if (group := key(entry)) is not None:
                groups.setdefault(brief(group), []).append(angle)
        means = sorted((_mean(found), group) for group, found in groups.items())
        if len(means) < 2:
            continue
        (low, least), (high, most) = means[0], means[-1]
        if judgement.turned_alike(low, high):
            alike.append(f"Every {kind} turned alike ({number(low)} to {number(high)} rad).")
        else:
            parts.append(f"by {kind}, {most} ({number(high)} rad; least {least}, {number(low)})")
    first = [f"They turned most: {'; '.join(parts)}."] if parts else []
    return " ".join([*first, *alike])


def _values(moving: Sequence[Found]) -> str:
    compared = [(entry, found) for entry, found in moving if found.k]
    if not compared:
        return ""
    changes = [found.value_change for _, found in compared]
    spread = "" if len(changes) == 1 else f" in the median matrix, up to {percent(max(changes))}"
    return (
        f"Leading singular values changed by {percent(median(changes))} (root mean square){spread};"
        " stable values alone say nothing, as unrelated matrices of one scale show them too."
    )


def _inside(moving: Sequence[Found]) -> str:
    """Where the change sits, beside what a change without structure would show."""
    blocks = [found for _, found in moving if found.k]
    if not blocks:
        return ""
    sides = [found.change.side_of_band("inside", found.k) for found in blocks]
    more, less = sides.count(1), sides.count(-1)
    inside = _mean(found.change.inside for found in blocks)
    expected = _mean(found.change.structureless for found in blocks)
    text = (
        f"Of the change's energy {percent(inside)} lies in the block of leading directions, where a"
        f" change without structure would have {percent(expected)}"
    )
    if not more and not less:
        return f"{text}: nothing that chance would not show."
    diagonal = _mean(found.change.diagonal for found in blocks)
    rotation = _mean(found.change.rotation for found in blocks)
    by_chance = _mean(found.change.expected("diagonal", found.k) for found in blocks)
    return (
        f"{text}: more than chance in {more} of {_matrices(len(blocks))}, less in {less};"
        f" {percent(diagonal)} of all changes values (diag; {percent(by_chance)} without structure),"
        f" {percent(rotation)} turns leading vectors among each other"
        f" (rot; {percent(expected - by_chance)})."
    )


def _gaps(moving: Sequence[Found]) -> str:
    gaps = [found for _, found in moving if found.gap_over_change is not None]
    loose = sum(found.has_loose_cut for found in gaps)
    if not loose:
        return ""
    return (
        f"In {loose} of {_matrices(len(gaps))} the base's gap at the cut is smaller than the change's"
        " largest singular value: there the largest angles may come from where k falls, and are no"
        " finding."
    )


def _intruders(moving: Sequence[Found]) -> str:
    counts = [(e, m.intruders) for e, m in moving if m.k and m.intruders is not None]
    if not counts:
        return ""
    total, having = sum(count for _, count in counts), sum(count > 0 for _, count in counts)
    if not total:
        return (
            f"No intruders: in {_matrices(len(counts))} each of the leading left vectors (up to ten)"
            " has a cosine of 0.5 or more with one of the base's."
        )
    entry, most = max(counts, key=lambda pair: pair[1])
    where = f"in {having} of {_matrices(len(counts))}"
    if having == 1:
        where += f": {brief(entry.name)}"
    elif most > 1:
        where += f", most in {brief(entry.name)}: {most}"
    else:
        where += ", one in each"
    return (
        f"{counted(total, 'intruder')} (of the leading left vectors, up to ten of each matrix, with no"
        f" cosine of 0.5 with any of the base's), {where}."
    )


def _others(compared: Compared) -> str:
    changed = [(other.relative, other.name) for other in compared.others if other.relative]
    if not changed:
        return ""
    size, name = max(changed)
    return (
        f"Of {counted(len(compared.others), 'other tensor')} (norms, biases, embeddings and the like)"
        f" {len(changed)} changed, {'most ' if len(changed) > 1 else ''}{brief(name)} by {percent(size)}."
    )


def _behaviour(findings: Findings) -> list[str]:
    """The measured KL of each checkpoint that was run on prompts."""
    ran = [(c, c.behaviour) for c in findings.compared if c.behaviour is not None]
    if not ran:
        return []
    parts = []
    for compared, found in ran:
        error = "" if found.kl_error is None else f" ± {number(found.kl_error)}"
        of = f" ({brief(compared.label)})" if len(ran) > 1 else ""
        parts.append(f"{number(found.kl)}{error}{of}")
    _, last = ran[-1]
    agreement = f"{'the last' if len(ran) > 1 else 'it'} and the base find the same token likeliest"
    return [
        f"On {counted(last.prompts, 'prompt')} ({counted(last.tokens, 'token')}) the mean KL from the base"
        f" is, in nats per token, {', '.join(parts)}; {agreement} in {percent(last.agreement)}."
    ]


# --- several checkpoints ---------------------------------------------------------------------------


def _series(findings: Findings) -> list[str]:
    """The medians of each related checkpoint, in the order given."""
    related = [c for c in findings.compared if c.verdict == "related" and _related(c)]
    if len(related) < 2:
        return []
    sizes = [median(entry.relative for entry, _ in _related(c)) for c in related]
    parts = [f"relative change {' → '.join(percent(size) for size in sizes)}"]
    for side in ("left", "right"):
        means = []
        for compared in related:
            turns: list[Turn] = [getattr(found, side) for _, found in _related(compared)]
            means.append(_mean(turn.mean for turn in turns if turn.is_telling))
        if not any(math.isnan(mean) for mean in means):
            parts.append(f"{side} {' → '.join(map(number, means))} rad")
    who = "" if len(related) == len(findings.compared) else " related"
    return [f"Over the{who} checkpoints, in order: {'; '.join(parts)}."]


def _turning_back(findings: Findings) -> list[str]:
    """Whether the last step comes nearer to the base or to a checkpoint before it."""
    last = len(findings.compared)
    if any(compared.verdict == "unrelated" for compared in findings.compared[-2:]):
        return []
    distance = {frozenset((p.first, p.second)): p for p in findings.pairs}
    labels = ["the base", *(brief(compared.label) for compared in findings.compared)]
    back: list[tuple[float, str]] = []
    asked = 0
    for other in range(last - 1):
        before = distance.get(frozenset((other, last - 1)))
        after = distance.get(frozenset((other, last)))
        if before is None or after is None:
            continue
        asked += 1
        if after.is_nearer_than(before):
            kept = (after.left + after.right) / (before.left + before.right)
            text = (
                f"{labels[other]} (chordal distance left {number(before.left)} → {number(after.left)},"
                f" right {number(before.right)} → {number(after.right)}; of weights"
                f" {number(before.distance)} → {number(after.distance)})"
            )
            back.append((kept, text))
    step = f"The last step, from {labels[last - 1]} to {labels[last]},"
    if back:
        most = f", the most of {len(back)} that it comes nearer to" if len(back) > 1 else ""
        return [f"{step} turns the leading vectors back towards {min(back)[1]}{most}."]
    return (
        [f"{step} does not turn back towards the base or an earlier checkpoint."] if asked else []
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan
