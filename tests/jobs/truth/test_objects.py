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
