"""OTBTF's train, valid, test: a quota in the order of the samples, or mixed by the C++ library's shuffle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def otbtf_labels(count: int, shares: Sequence[float], random: bool) -> NDArray[np.int64]:
    """The group (0, 1, 2) of each of ``count`` samples: the one with the smallest counter, in float32, (count,).

    A counter grows by the inverse of its group's share, a share of 0 starts full. With ``random`` the groups are then
    mixed as libstdc++ does it, always in the same way.
    """
    given = np.asarray(shares, np.float32)
    total = given[0] + given[1] + given[2]
    growth = [np.float32(total / share) if share > 0 else np.float32(0) for share in given]
    counters = [np.float32(0) if share > 0 else np.float32(count) for share in given]
    labels = []
    for _ in range(count):
        label = counters.index(min(counters))
        labels.append(label)
        counters[label] = counters[label] + growth[label]
    if random:
        _shuffle(labels)
    return np.array(labels, np.int64)


def _shuffle(items: list[int]) -> None:
    """libstdc++'s std::shuffle with a fresh std::default_random_engine, which is minstd_rand0 with seed 1."""
    most = 2**31 - 3  # the engine's largest number less its smallest
    state = 1

    def below(bound: int) -> int:
        nonlocal state
        scale = most // bound
        while True:
            state = state * 16807 % (2**31 - 1)
            if state - 1 < bound * scale:
                return (state - 1) // scale

    def swap(a: int, b: int) -> None:
        items[a], items[b] = items[b], items[a]

    n, first = len(items), 1
    if n == 0 or most // n < n:
        for i in range(1, n):
            swap(i, below(i + 1))
        return
    if n % 2 == 0:
        swap(1, below(2))
        first = 2
    for i in range(first, n, 2):  # one number serves two swaps
        one, other = divmod(below((i + 1) * (i + 2)), i + 2)
        swap(i, one)
        swap(i + 1, other)
