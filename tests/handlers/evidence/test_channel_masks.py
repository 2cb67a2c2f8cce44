from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import AblationCAM, ScoreCAM

from handlers.evidence import ablation, channel_masks
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.conftest import CATEGORIES, random_picture, small_model
from tests.handlers.evidence.asked import evidence
from tests.handlers.evidence.classifier_peer import of_the_peer, small_classifier
from tests.handlers.evidence.fixed_twin import FixedTwin

PICTURE = random_picture(120, 160)


@pytest.mark.parametrize("layer", [None, "layer2"])
def test_equals_pytorch_grad_cam_on_a_classifier(layer: str | None) -> None:
    explainer = small_classifier()
    (ours,) = explainer.explain([PICTURE], ExplainRequest(method="scorecam", layer=layer))[0]
    weights, activation = of_the_peer(ScoreCAM, explainer, layer, ours.label)
    theirs = (weights[:, None, None] * activation).sum(0).clamp(min=0)
    torch.testing.assert_close(ours.heatmap, theirs, rtol=1e-4, atol=1e-6)
    assert ours.heatmap.max() > 0


@pytest.mark.parametrize("layer", [None, "layer2"])
def test_ablation_equals_pytorch_grad_cam_on_a_classifier(layer: str | None) -> None:
    explainer = small_classifier()
    ((piece,),) = evidence(ablation.pieces, explainer, PICTURE, layer=layer)
    scores, best = piece.evidence[0], explainer.detect([PICTURE])[0].labels[:2].tolist()
    for row, label in enumerate(best):
        weights, activation = of_the_peer(AblationCAM, explainer, layer, label)
        ours = (scores.value[row] - scores.changed[row]) / scores.value[row]
        torch.testing.assert_close(ours, weights, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(scores.activation, activation)


def by_hand(twin: FixedTwin, activation: torch.Tensor, channel: int, place: int) -> float:
    """The class of a fixed candidate on the picture under one channel, by the stock modules."""
    mask = F.interpolate(
        activation[None, channel, None], twin.pixels.shape[-2:], mode="bilinear", align_corners=True
    )
    mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
    with torch.no_grad():
        maps = twin.model.backbone(twin.pixels * mask)
    return twin.scalar(place, "class", [*maps.values()])


@pytest.mark.parametrize("layer", ["emitting", "pyramid", "backbone.features.0.9"])
@pytest.mark.parametrize("architecture", ["ssdlite320_mobilenet_v3_large"])
def test_equals_a_loop_through_the_stock_modules(
    architecture: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(architecture)
    twin = FixedTwin(model, PICTURE)
    # A few channels of each map are enough, and quick.
    monkeypatch.setattr(channel_masks, "in_chunks", lambda number, floats: [torch.arange(3)])
    explainer = Explainer.from_model(model, CATEGORIES)
    groups = evidence(channel_masks.pieces, explainer, PICTURE, layer=layer)
    assert sorted(int(place) for (piece,) in groups for place in piece.places) == [0, 1]
    for (piece,) in groups:
        (scores,) = piece.evidence
        for row, place in enumerate(piece.places.tolist()):
            assert float(scores.value[row]) == pytest.approx(
                twin.scalar(place, "class", twin.maps), rel=1e-4
            )
            for channel in range(3):
                slow = by_hand(twin, scores.activation, channel, place)
                assert float(scores.changed[row, channel]) == pytest.approx(
                    slow, rel=1e-3, abs=1e-3
                )
