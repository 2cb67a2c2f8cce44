"""A few of very many: the worst of them, or some at random."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")


class Worst(Generic[Item]):
    """The `most` items with the highest values; of equals those that came first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._heap: list[tuple[float, int, Item]] = []
        self._order = 0

    def add(self, value: float, item: Item) -> None:
        """One more."""
        self._order -= 1
        push = heapq.heappush if len(self._heap) < self.most else heapq.heappushpop
        push(self._heap, (value, self._order, item))  # no two have one order

    def items(self) -> list[Item]:
        """The highest value first."""
        return [item for _, _, item in sorted(self._heap, key=lambda each: each[:2], reverse=True)]


class Sample(Generic[Item]):
    """`most` items, each choice of them as likely as any other (Vitter 1985, algorithm R)."""

    def __init__(self, most: int, seed: int) -> None:
        self.most = most
        self.seen = 0
        self.items: list[Item] = []
        self._random = np.random.default_rng(seed)

    def add(self, item: Item) -> None:
        """One more."""
        self.seen += 1
        if len(self.items) < self.most:
            self.items.append(item)
        elif (place := int(self._random.integers(self.seen))) < self.most:
            self.items[place] = item
