"""What is really there."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.truth.objects import Objects


def test_all_of_one_picture_are_told_alike() -> None:
    no, boxes = np.zeros(2, dtype=bool), np.zeros((2, 4))
    assert len(Objects(boxes, ("cat", "dog"), no, no, (None, None))) == 2
    with pytest.raises(ValueError, match=r"difficult: got \(1,\); expected \(2,\), as"):
        Objects(boxes, ("cat", "dog"), no[:1], no, (None, None))


def test_some_of_them() -> None:
    boxes = np.arange(8.0).reshape(2, 4)
    flags = np.array([False, True])
    both = Objects(boxes, ("cat", "dog"), flags, ~flags, (None, flags[None]), np.array([1.0, 2.0]))
    last = both.only(np.array([False, True]))
    assert (last.boxes.tolist(), last.categories) == ([[4, 5, 6, 7]], ("dog",))
    assert (last.difficult.tolist(), last.crowd.tolist()) == ([True], [False])
    assert last.masks[0] is both.masks[1]
    assert last.areas is not None
    assert last.areas.tolist() == [2]
    with pytest.raises(ValueError, match=r"areas: got \(1,\)"):
        Objects(boxes, ("cat", "dog"), flags, flags, (None, None), np.ones(1))
