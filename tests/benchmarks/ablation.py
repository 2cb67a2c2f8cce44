"""AblationCAM of a hundred boxes, each by all its channels, against pytorch-grad-cam's of one
target for the picture; and how the two's maps correlate where the weights are trained."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handlers.cam.registry import METHODS
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.benchmarks.added_cost import CLASSES, Subject
from tests.benchmarks.harness import (
    Goal,
    Row,
    Settings,
    SkippedError,
    Work,
    added_seconds,
    alternate,
    difference,
    equal,
    middle,
    spread,
)
from tests.benchmarks.peers import before_stretching
from tests.benchmarks.trained import BCCD, BCCD_CATEGORIES, bccd_detector, bccd_pictures

ARCHITECTURE = "fasterrcnn_resnet50_fpn"
BOXES = 100
CHANNELS = 256
# The peer takes every channel of every level; its ratio names a share of them from the top and as
# many from the bottom. It is timed at two, and the difference is what its channels cost.
FEW, MORE = 2, 6  # channels from each end
# Ours with the same semantics.
TUTORIAL = {
    "method": "ablationcam",
    "ablation": "tutorial",
    "layer": "pyramid",
    "target": "box_score",
}
BATCH = 4  # channels that the peer removes in one batch of pictures


def _peer_cam(model: nn.Module, share: float, levels: Sequence[str]) -> Any:
    """AblationCAM as the tutorial on Faster R-CNN calls it."""
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.ablation_layer import AblationLayerFasterRCNN
    from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform

    class OfLevels(AblationLayerFasterRCNN):  # type: ignore[misc]
        """The peer's has the names of five levels written down; this one asks the network."""

        def __call__(self, _: Any) -> Any:
            for row, index in enumerate(self.indices[: len(self.activations["pool"])]):
                level, channel = divmod(int(index), CHANNELS)
                self.activations[levels[level]][row, channel] = -1000
            return self.activations

    return AblationCAM(
        model,
        [model.get_submodule("backbone")],
        reshape_transform=fasterrcnn_reshape_transform,
        ablation_layer=AblationLayerFasterRCNN() if len(levels) == 5 else OfLevels(),
        batch_size=BATCH,
        ratio_channels_to_ablate=share,
    )


def _peer_target(explainer: Explainer, picture: Tensor, threshold: float, boxes: int) -> Any:
    from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget

    found = explainer.detect([picture])[0]
    chosen = torch.where(found.scores >= threshold)[0][:boxes]
    corners = found.boxes[chosen].int().numpy()
    return FasterRCNNBoxScoreTarget(labels=found.labels[chosen].tolist(), bounding_boxes=corners)


def _quietly(cam: Any, batch: Tensor, target: Any) -> np.ndarray[Any, Any]:
    """Without its progress bar."""
    with contextlib.redirect_stderr(io.StringIO()):
        found: np.ndarray[Any, Any] = cam(batch, [target])[0]
    return found


def _run(settings: Settings) -> Iterator[Row]:
    if "ablationcam" not in METHODS.names():
        raise SkippedError("there is no method ablationcam in this checkout")
    yield _times(settings)
    yield from _correlations(settings)


def _times(settings: Settings) -> Row:
    options = settings.sized(box_score_thresh=0.0)
    model = build_model(ARCHITECTURE, CLASSES, options)
    subject = Subject.of(ARCHITECTURE, model, settings)
    explainer, picture = subject.explainer, subject.picture
    levels = explainer.detector.level_names()
    number = len(levels) * CHANNELS
    target = _peer_target(explainer, picture, 0.0, BOXES)
    batch = picture[None].to(settings.device) / 255
    request = ExplainRequest(method="ablationcam", score_threshold=0.0, max_detections=BOXES)
    boxes = 0

    def ours() -> None:
        nonlocal boxes
        boxes = len(explainer.explain([picture], request)[0])

    def peer(channels: int) -> None:
        # Half a channel more, so that the peer's rounding down gives that many.
        with _peer_cam(model, (channels + 0.5) / number, levels) as cam:
            _quietly(cam, batch, target)

    with added_seconds(explainer, settings) as added:
        seconds = alternate(settings, few=lambda: peer(FEW), more=lambda: peer(MORE), ours=ours)
    added = added[1:]
    slopes = [
        (more - few) / (2 * (MORE - FEW))
        for few, more in zip(seconds["few"], seconds["more"], strict=True)
    ]
    whole = [slope * number for slope in slopes]
    times = [one / other for one, other in zip(whole, added, strict=True)]
    return Row(
        case=f"{ARCHITECTURE}, ours {boxes} boxes x {CHANNELS} channels, theirs 1 x {number:,}",
        measure="times faster than pytorch-grad-cam",
        value=middle(times),
        spread=spread(times),
        ours=middle(added),
        other=middle(whole),
        goal=Goal(1000, at_most=False),
        note=(
            f"Ours is what comes on top of detection. Theirs is timed at {2 * FEW} and"
            f" {2 * MORE} of its channels, and the difference taken to all {number:,}. The"
            " semantics differ: ours scores each box's own candidate without each channel of the"
            " level that emitted it (`fixed`), theirs sets channels of all levels to -1000,"
            " detects anew, and sums the best-matching boxes' scores into one target."
        ),
        figures={"boxes": boxes, "peer_seconds_a_channel": middle(slopes)},
    )


def _correlations(settings: Settings) -> Iterator[Row]:
    try:
        model = bccd_detector()
    except SkippedError as error:
        print(f"  without the correlation of maps: {error}")
        return
    from scipy.stats import spearmanr

    explainer = Explainer.from_model(model, BCCD_CATEGORIES, settings.device)
    levels = explainer.detector.level_names()
    share = 2.5 / (len(levels) * CHANNELS) if settings.tiny else 1.0
    removed = "a few" if settings.tiny else "all"
    ranks, products, differences = [], [], []
    for picture in bccd_pictures(settings)[:2]:
        target = _peer_target(explainer, picture, 0.5, BOXES)
        with _peer_cam(model, share, levels) as cam:
            native = before_stretching(cam)
            theirs = _quietly(cam, picture[None].to(settings.device) / 255, target)
        request = ExplainRequest.from_fields(
            {**TUTORIAL, "channels": share, "score_threshold": 0.5}
        )
        ((as_theirs,),) = explainer.explain([picture], request)
        differences.append(difference(as_theirs.heatmap, native[0][0].clamp(min=0)))
        request = ExplainRequest(method="ablationcam", target="probability", score_threshold=0.5)
        explained = explainer.explain([picture], request)[0]
        ours = torch.stack([each.on_picture() for each in explained]).sum(0).numpy()
        ranks.append(float(spearmanr(ours.ravel(), theirs.ravel()).statistic))
        products.append(float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]))
    yield Row(
        case=f"{BCCD}, trained on BCCD, {len(levels)} levels, {len(differences)} pictures",
        measure="largest difference of the tutorial's maps, of the largest value",
        value=middle(differences),
        spread=spread(differences),
        same=equal(max(differences)),
        note=f"Ours with `--ablation tutorial`, by {removed} of the channels, as the peer's.",
    )
    for measure, values in (("Spearman's rank", ranks), ("Pearson's", products)):
        yield Row(
            case=f"{BCCD}, trained on BCCD, {len(levels)} levels, {len(values)} pictures",
            measure=f"{measure} correlation of maps",
            value=middle(values),
            spread=spread(values),
            note=(
                "Correlation over pixels of the sum of our maps (`fixed`, target probability) with"
                f" the peer's one map, by {removed} of its channels, on test pictures."
            ),
        )


WORK = Work("AblationCAM, against pytorch-grad-cam", _run)
