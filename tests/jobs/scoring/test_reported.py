"""What was reported, as JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jobs.scoring.reported import Reported


@pytest.mark.parametrize("number", [0, 2])
def test_json_and_back(number: int) -> None:
    boxes = np.arange(8, dtype=np.float64).reshape(2, 4)[:number] / 3
    given = Reported(boxes, ("cat", "dog")[:number], np.array([0.75, 0.1])[:number])
    found = Reported.from_dict(json.loads(json.dumps(given.to_dict())))
    assert np.array_equal(found.boxes, boxes)
    assert found.boxes.shape == (number, 4)
    assert found.categories == given.categories
    assert np.array_equal(found.scores, given.scores)
