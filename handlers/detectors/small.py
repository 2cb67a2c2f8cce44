"""A small Faster R-CNN that learns from nothing on two processor cores."""

from collections import OrderedDict
from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.ops import MultiScaleRoIAlign

from handlers.detectors.registry import ARCHITECTURES

STEM_WIDTH = 32
STAGE_WIDTHS = (32, 64, 128, 288)
STAGE_DEPTHS = (1, 2, 3, 2)
PYRAMID_CHANNELS = 48
POOLED_SIDE = 7
REPRESENTATION = 256
# One anchor side per pyramid level, in pixels of the resized picture.
ANCHOR_SIDES = (22, 40, 72, 124, 200)
ANCHOR_RATIOS = (0.6, 1.0, 1.67)


def regnet_small_fpn_backbone() -> BackboneWithFPN:
    """Build the trunk and its feature pyramid, weights drawn at random.

    Takes pictures [B, 3, H, W]; gives five maps of `PYRAMID_CHANNELS` channels at
    strides 4, 8, 16, 32 and 64 pixels, named "0", "1", "2", "3" and "pool".
    """
    trunk = RegNet(
        BlockParams(
            depths=list(STAGE_DEPTHS),
            widths=list(STAGE_WIDTHS),
            # Groups as wide as the stage: dense convolutions, the fast kind on a processor.
            group_widths=list(STAGE_WIDTHS),
            bottleneck_multipliers=[1.0] * len(STAGE_WIDTHS),
            strides=[2] * len(STAGE_WIDTHS),
        ),
        num_classes=1,
        stem_width=STEM_WIDTH,
    )
    # The pyramid reads its levels from direct children, so the stages move up one level.
    body = nn.Sequential(OrderedDict(stem=trunk.stem, **dict(trunk.trunk_output.named_children())))
    stages = [f"block{number}" for number in range(1, len(STAGE_WIDTHS) + 1)]
    return BackboneWithFPN(
        body,
        return_layers={stage: str(level) for level, stage in enumerate(stages)},
        in_channels_list=list(STAGE_WIDTHS),
        out_channels=PYRAMID_CHANNELS,
        norm_layer=nn.BatchNorm2d,
    )


@ARCHITECTURES.register("fasterrcnn_regnet_small_fpn")
def fasterrcnn_regnet_small_fpn(num_classes: int, **options: Any) -> FasterRCNN:
    """Build the small detector, weights drawn at random from torch's global generator.

    Args:
        num_classes: count of categories with the background included, at least 2.
        options: passed on to `FasterRCNN`, over the defaults chosen here.

    Returns:
        A detector of pictures [3, H, W], RGB in 0..1. It resizes each to a shorter side of
        320 px, the longer side at most 448 px; boxes come back in pixels of the original.
    """
    backbone = regnet_small_fpn_backbone()
    defaults: dict[str, Any] = {
        "min_size": 320,
        "max_size": 448,
        "rpn_anchor_generator": AnchorGenerator(
            sizes=tuple((side,) for side in ANCHOR_SIDES),
            aspect_ratios=(ANCHOR_RATIOS,) * len(ANCHOR_SIDES),
        ),
        "rpn_pre_nms_top_n_train": 600,
        "rpn_post_nms_top_n_train": 300,
        "rpn_pre_nms_top_n_test": 400,
        "rpn_post_nms_top_n_test": 200,
        "rpn_batch_size_per_image": 128,
        # Half of torchvision's canonical side: most objects here are smaller than 112 px.
        "box_roi_pool": MultiScaleRoIAlign(
            featmap_names=["0", "1", "2", "3"],
            output_size=POOLED_SIDE,
            sampling_ratio=2,
            canonical_scale=112,
        ),
        "box_head": TwoMLPHead(PYRAMID_CHANNELS * POOLED_SIDE**2, REPRESENTATION),
        "box_predictor": FastRCNNPredictor(REPRESENTATION, num_classes),
        "box_batch_size_per_image": 64,
        "box_detections_per_img": 50,
    }
    # A predictor of our own, since torchvision's default expects a representation of 1024.
    return FasterRCNN(backbone, **(defaults | options))
