"""A few of very many."""

from __future__ import annotations

from collections import Counter

import numpy as np

from jobs.audit.triage.kept import Sample, Worst


def test_the_highest_are_kept_in_their_order() -> None:
    values = np.random.default_rng(0).integers(0, 20, 100).tolist()
    worst: Worst[int] = Worst(7)
    for place, value in enumerate(values):
        worst.add(value, place)
    assert worst.items() == sorted(range(100), key=lambda place: -values[place])[:7]


def test_every_item_is_as_likely_to_be_drawn() -> None:
    drawn: Counter[int] = Counter()
    for seed in range(2000):
        sample: Sample[int] = Sample(3, seed)
        for item in range(10):
            sample.add(item)
        assert len(set(sample.items)) == 3
        drawn.update(sample.items)
    assert sample.seen == 10
    # 600 expected of each; the standard deviation is sqrt(2000 * 0.3 * 0.7), about 20.
    assert all(abs(drawn[item] - 600) < 100 for item in range(10))
