"""How the jobs of a plan are shared out among processes that do not speak to each other."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence

from .local import Job

SLACK = 1.01  # of the largest share, for jobs of one file that stay together


def cost(job: Job) -> float:
    """Estimated effort of a job, in the units of `Step.work`."""
    return job.work


def shares(
    pending: Sequence[Job], count: int, costs: Sequence[float] | None = None
) -> list[list[int]]:
    """The numbers of the jobs that each of `count` ranks does: every job once, balanced by cost.

    The same arguments give the same shares in every process.

    Args:
        costs: of each job, such as measured seconds; by default `cost`.
    """
    groups = [(job.plans[0], job.steps[0].file) for job in pending]
    return balanced([cost(job) for job in pending] if costs is None else costs, groups, count)


def balanced(costs: Sequence[float], groups: Sequence[Hashable], count: int) -> list[list[int]]:
    """The numbers of items by share: the costliest first, each to the share that has least so far.

    An item goes to the share that got the last item of its group instead, where that makes no share
    larger than they have to be.
    """
    found: list[list[int]] = [[] for _ in range(count)]
    filled = [0.0] * count
    limit = SLACK * max(sum(costs) / count, max(costs, default=0.0))
    least = [(0.0, number) for number in range(count)]
    last: dict[Hashable, int] = {}
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        share = last.get(groups[item])
        if share is None or filled[share] + costs[item] > limit:
            share = _least(least, filled)
        found[share].append(item)
        filled[share] += costs[item]
        last[groups[item]] = share
        heapq.heappush(least, (filled[share], share))
    return [sorted(items) for items in found]


def _least(least: list[tuple[float, int]], filled: Sequence[float]) -> int:
    """The share with least in it; entries of the heap that are out of date are dropped."""
    while True:
        load, share = heapq.heappop(least)
        if load == filled[share]:
            return share
