"""The target of the tutorial by its definition; tests/handlers/test_all_detectors.py has it on
networks."""

from __future__ import annotations

import pytest
import torch

from handlers.targets.box_score import FasterRCNNBoxScoreTarget
from tests.handlers.whole_model_twin import box_score_by_hand


@pytest.mark.parametrize("seed", range(5))
def test_the_tutorials_target_by_its_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(12, 4, generator=generator) * 60
    boxes = torch.cat([corners[:, :2], corners[:, :2] + 5 + corners[:, 2:]], 1)
    labels = torch.randint(1, 3, (12,), generator=generator)
    outputs = {"boxes": boxes, "labels": labels, "scores": torch.rand(12, generator=generator)}
    given = boxes[:6] + torch.rand(6, 4, generator=generator) * 12
    ours = FasterRCNNBoxScoreTarget(labels[:6].tolist(), given)(outputs)
    assert float(ours) == pytest.approx(
        float(box_score_by_hand(labels[:6].tolist(), given, outputs))
    )
    assert float(ours) > 0
