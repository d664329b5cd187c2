"""The findings of a comparison in sentences. Pure.

Every sentence gives the numbers that it rests on, and no sentence calls chance a finding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from ..errors import counted
from ..measure import judgement
from ..measure.findings import Behaviour, Compared, Entry, Findings, with_measures
from ..measure.measures import Measures
from ..measure.null import ROUNDING
from ..text import brief
from .answers import state_sentences
from .column import mean
from .columns import column_of
from .format import DEGREES, number, percent
from .series import over_checkpoints, turning_back
from .verdicts import verdict, verdicts

Measured = tuple[Entry, Measures]

RAZOR = (
    "How far weights moved does not by itself predict what a model forgets (RL's Razor, arXiv"
    " 2509.04259): evaluate both checkpoints on the tasks that matter."
)


def headline(findings: Findings, *, beside_table: bool = False) -> list[str]:
    """Sentences for the top of the page and for the terminal: the verdict, then the main findings.

    Args:
        beside_table: leave out the means, which a table shows.
    """
    if not findings.compared:
        return [f"Nothing was compared with {brief(findings.base)}."]
    last = findings.compared[-1]
    if len(findings.compared) == 1:
        sentences = [verdict(findings.base, last), *_interpretation(last, beside_table)]
    else:
        strays = [c for c in findings.compared[:-1] if c.verdict == "unrelated"]
        sentences = [verdicts(findings), *(verdict(findings.base, c) for c in strays)]
        sentences += over_checkpoints(findings)
        if last.verdict != "identical":
            sentences.append(f"The last checkpoint: {verdict(findings.base, last)}")
            sentences += _interpretation(last, beside_table)
        sentences += turning_back(findings)
    sentences += [*_behaviour(findings), *state_sentences(findings)]
    return [*sentences, RAZOR] if findings.verdict == "related" else sentences


# --- what one checkpoint shows -------------------------------------------------------------------


def _interpretation(compared: Compared, beside_table: bool) -> list[str]:
    """The findings on matrices that are related to the base's."""
    if compared.verdict != "related":
        return []
    related = with_measures(compared.related_matrices)
    moving = [(entry, found) for entry, found in related if entry.relative > 0]
    sentences = []
    if moving:
        turned = "" if beside_table else _mean_angles([entry for entry, _ in moving])
        sentences += [_change_of_weights(moving), turned, *_angles_without_finding(moving)]
        if not beside_table:
            most = _most_turned_groups(moving) if compared.says_where else ""
            sentences += [most, _change_of_values(moving), _share_in_block(moving)]
        sentences += [_loose_cuts(moving), _intruders(moving)]
    elif compared.measured:
        sentences.append("No measured matrix moved.")
    sentences.append(_other_tensors(compared))
    return [sentence for sentence in sentences if sentence]


def _matrices(count: int) -> str:
    return counted(count, "matrix")


def _change_of_weights(moving: Sequence[Measured]) -> str:
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
    return f"{text}{_rounding(moving)}."


def _rounding(moving: Sequence[Measured]) -> str:
    """How many of the changes may come from rounding alone."""
    dtypes = [entry.dtype for entry, _ in moving if entry.is_rounding]
    if not dtypes:
        return ""
    how = ", ".join(f"{percent(ROUNDING[it])} for {it}" for it in dict.fromkeys(dtypes))
    where = "that" if len(moving) == 1 else f"in {len(dtypes)} of {_matrices(len(moving))} that"
    return f"; {where} is no more than rounding to the dtype makes ({how}), and may come from rounding alone"


def _mean_angles(entries: Sequence[Entry]) -> str:
    parts = []
    for side in ("left", "right"):
        of_side = column_of(f"{side}_mean")
        telling = [entry for entry in entries if not of_side.is_void(entry)]
        angle, chance = mean(of_side.values(telling)), mean(of_side.chances(telling))
        if angle is not None:
            text = of_side.unit.text
            parts.append(f"{side} ones by {text(angle)} (independent: {text(chance)})")
    return f"Leading singular vectors turned, on average: {', '.join(parts)}." if parts else ""


def _angles_without_finding(moving: Sequence[Measured]) -> list[str]:
    """Sentences that say where angles are no finding."""
    if not any(found.k for _, found in moving):
        return ["No singular vectors were compared: k is 0."]
    turns = [turn for _, found in moving for turn in (found.left, found.right)]
    silent = sum(not turn.chance.can_be_distinguished for turn in turns)
    noise = sum(turn.is_chance for turn in turns)
    sentences = []
    if silent:
        sentences.append(
            f"On {silent} of {counted(2 * len(moving), 'side')} the angles say nothing: k is 0 or"
            " so large that the leading vectors must fill most of their space."
        )
    if noise:
        sentences.append(
            f"On {noise} of {counted(2 * len(moving), 'side')} the leading vectors are no nearer to"
            " the base's than independent ones: no finding, and not in the mean."
        )
    return sentences


def _most_turned_groups(moving: Sequence[Measured]) -> str:
    """The modules, roles and layers whose vectors turned most and least."""
    angles = [(entry, found.informative_angle) for entry, found in moving]
    turned = [(entry, angle) for entry, angle in angles if angle is not None]
    kinds: dict[str, Callable[[Entry], str | None]] = {
        "module": lambda entry: entry.module,
        "role": lambda entry: entry.role,
        "layer": lambda entry: None if entry.layer is None else f"layer {entry.layer}",
    }
    parts, alike = [], []
    for kind, group_of in kinds.items():
        means = _means_of_groups(turned, group_of)
        if len(means) < 2:
            continue
        (low, least), (high, most) = means[0], means[-1]
        lowest, highest = DEGREES.text(low), DEGREES.text(high)
        if judgement.turned_alike(low, high):
            alike.append(f"Every {kind} turned alike ({lowest} to {highest}).")
        else:
            parts.append(f"by {kind}, {most} ({highest}; least {least}, {lowest})")
    first = [f"Vectors turned most: {'; '.join(parts)}."] if parts else []
    return " ".join([*first, *alike])


def _means_of_groups(
    turned: Sequence[tuple[Entry, float]], group_of: Callable[[Entry], str | None]
) -> list[tuple[float, str]]:
    """(mean angle, group), ascending; matrices without a group are left out."""
    groups: dict[str, list[float]] = {}
    for entry, angle in turned:
        if (group := group_of(entry)) is not None:
            groups.setdefault(brief(group), []).append(angle)
    return sorted((sum(angles) / len(angles), group) for group, angles in groups.items())


def _change_of_values(moving: Sequence[Measured]) -> str:
    changes = [found.value_change for _, found in moving if found.k]
    if not changes:
        return ""
    spread = "" if len(changes) == 1 else f" in the median matrix, up to {percent(max(changes))}"
    return (
        f"Leading singular values changed by {percent(median(changes))} (root mean square){spread};"
        " stable values alone say nothing, as unrelated matrices of one scale show them too."
    )


def _share_in_block(moving: Sequence[Measured]) -> str:
    """The share of the change in the leading block, beside that of a change without structure."""
    entries = [entry for entry, found in moving if found.k]
    if not entries:
        return ""
    shares = {key: _share(key, entries) for key in ("in_block", "diag", "rot")}
    (inside, expected), (diagonal, by_chance), (rotation, rest) = shares.values()
    text = (
        f"Of the change's energy {inside} lies in the block of leading directions, where a"
        f" change without structure would have {expected}"
    )
    sides = [found.change.side_of_band("inside", found.k) for _, found in moving if found.k]
    if not any(sides):
        return f"{text}: nothing that chance would not show."
    return (
        f"{text}: more than chance in {sides.count(1)} of {_matrices(len(sides))},"
        f" less in {sides.count(-1)};"
        f" {diagonal} of all changes values (diag; {by_chance} without structure),"
        f" {rotation} turns leading vectors among each other (rot; {rest})."
    )


def _share(key: str, entries: Sequence[Entry]) -> tuple[str, str]:
    """The mean of a share of the change, and what chance gives."""
    column = column_of(key)
    found = mean(column.values(entries)), mean(column.chances(entries))
    return column.unit.text(found[0]), column.unit.text(found[1])


def _loose_cuts(moving: Sequence[Measured]) -> str:
    cut = [found for _, found in moving if found.gap_over_change is not None]
    loose = sum(found.has_loose_cut for found in cut)
    if not loose:
        return ""
    return (
        f"In {loose} of {_matrices(len(cut))} the base's gap at the cut is smaller than the"
        " change's largest singular value: there the largest angles may come from where k falls,"
        " and are no finding."
    )


def _intruders(moving: Sequence[Measured]) -> str:
    counts = [(e, m.intruders) for e, m in moving if m.k and m.intruders is not None]
    if not counts:
        return ""
    total, having = sum(count for _, count in counts), sum(count > 0 for _, count in counts)
    if not total:
        return (
            f"No intruders: in {_matrices(len(counts))} each of the leading left vectors (up to"
            " ten) has a cosine of 0.5 or more with one of the base's."
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
        f"{counted(total, 'intruder')} (of the leading left vectors, up to ten of each matrix, with"
        f" no cosine of 0.5 with any of the base's), {where}."
    )


def _other_tensors(compared: Compared) -> str:
    changed = [(other.relative, other.name) for other in compared.others if other.relative]
    if not changed:
        return ""
    size, name = max(changed)
    return (
        f"Of {counted(len(compared.others), 'other tensor')} (norms, biases, embeddings and the"
        f" like) {len(changed)} changed, {'most ' if len(changed) > 1 else ''}{brief(name)} by"
        f" {percent(size)}."
    )


def _behaviour(findings: Findings) -> list[str]:
    """The KL divergence of each checkpoint that was run on prompts."""
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
        f"On {counted(last.prompts, 'prompt')} ({counted(last.tokens, 'token')}) the mean KL from"
        f" the base is, in nats per token, {', '.join(parts)}; {agreement} in"
        f" {percent(last.agreement)}{_margins(last)}."
    ]


def _margins(found: Behaviour) -> str:
    """How sure both models are of the likeliest token."""
    if found.base_margin is None:
        return ""
    return (
        f"; its lead over the second likeliest is {percent(found.base_margin)} in the base and"
        f" {percent(found.margin)} after"
    )
