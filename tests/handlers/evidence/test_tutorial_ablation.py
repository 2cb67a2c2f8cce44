"""Against pytorch-grad-cam itself: its AblationCAM with its layer, transform and target for Faster
R-CNN, and its Score-CAM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayerFasterRCNN
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform

from handlers.cam.channels import ablationcam
from handlers.evidence import ablation
from handlers.explainer import Explainer
from tests.conftest import CATEGORIES, random_picture, small_model
from tests.handlers.evidence.asked import evidence

PICTURE = random_picture(96, 96)
TUTORIAL = {"ablation": "tutorial", "layer": "pyramid", "target": "box_score"}


@pytest.mark.parametrize("share", [0.01, pytest.param(0.2, marks=pytest.mark.full)])
def test_weights_equal_pytorch_grad_cams(share: float) -> None:
    model: Any = small_model("fasterrcnn_resnet50_fpn")
    explainer = Explainer.from_model(model, CATEGORIES)
    ((piece,),) = evidence(ablation.pieces, explainer, PICTURE, channels=share, **TUTORIAL)
    scores = piece.evidence[0]
    ours = (scores.value[:, None] - scores.changed) / scores.value[:, None]
    found = explainer.detect([PICTURE])[0]
    target = FasterRCNNBoxScoreTarget(found.labels[:2].tolist(), np.int32(found.boxes[:2]))
    peer = AblationCAM(
        model,
        [model.backbone],
        reshape_transform=fasterrcnn_reshape_transform,
        ablation_layer=AblationLayerFasterRCNN(),
        batch_size=4,
        ratio_channels_to_ablate=share,
    )
    theirs: dict[str, np.ndarray[Any, Any]] = {}
    weights = peer.get_cam_weights
    peer.get_cam_weights = lambda *given: theirs.setdefault("weights", weights(*given))
    heatmap = peer((PICTURE / 255)[None], [target])[0]
    np.testing.assert_allclose(ours, theirs["weights"], atol=1e-4)
    assert np.count_nonzero(np.abs(theirs["weights"]) > 1e-3) >= 3
    mine = ablationcam(scores)[0].clamp(min=0)
    mine = torch.nn.functional.interpolate(mine[None, None], heatmap.shape, mode="bilinear")[0, 0]
    assert np.corrcoef((mine / mine.max()).flatten(), heatmap.flatten())[0, 1] > 0.99
