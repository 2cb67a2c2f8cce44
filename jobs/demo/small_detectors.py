"""Small one-stage detectors that learn on two processor cores, to measure each family on.

A model file: `python -m archives build --model-file jobs/demo/small_detectors.py` puts it into the
archive of a detector that `python -m jobs.demo.train --architecture` trained. They share the trunk
of the demo's Faster R-CNN, so that they can begin with its weights.
"""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import Conv2dNormActivation

from handlers.detectors.registry import ARCHITECTURES
from handlers.detectors.small import STAGE_WIDTHS, regnet_small_fpn_backbone

# The pyramid leaves out the trunk's first stage: strides 8, 16, 32 and 64 px.
STAGES = (2, 3, 4)
RETINANET_CHANNELS = 48
FCOS_CHANNELS = 64  # its heads normalise 32 groups
SIZES = {"min_size": 320, "max_size": 448}
SSD_SIZE = 320
# Shares of the picture: the side of an anchor on each map, and of one beyond the last.
SSD_SCALES = [0.08, 0.16, 0.3, 0.5, 0.75]
EXTRA_WIDTH = 128


def _pyramid(channels: int) -> BackboneWithFPN:
    return BackboneWithFPN(
        regnet_small_fpn_backbone_body(),
        return_layers={f"block{stage}": str(place) for place, stage in enumerate(STAGES)},
        in_channels_list=[STAGE_WIDTHS[stage - 1] for stage in STAGES],
        out_channels=channels,
        norm_layer=nn.BatchNorm2d,
    )


def regnet_small_fpn_backbone_body() -> nn.Sequential:
    """The trunk of the demo's detector: stem, block1, ... block4 (strides 2, 4, 8, 16, 32)."""
    return nn.Sequential(OrderedDict(regnet_small_fpn_backbone().body.named_children()))


@ARCHITECTURES.register("retinanet_regnet_small_fpn")
def retinanet_regnet_small_fpn(num_classes: int, **options: Any) -> RetinaNet:
    """RetinaNet (Lin et al. 2017) on the small trunk; num_classes counts label 0, the background,
    which is never reported. options: RetinaNet's own."""
    sides = ((22, 30), (40, 54), (72, 97), (124, 180))
    defaults: dict[str, Any] = {
        **SIZES,
        "anchor_generator": AnchorGenerator(sides, ((0.6, 1.0, 1.67),) * len(sides)),
        "detections_per_img": 50,
    }
    model = RetinaNet(_pyramid(RETINANET_CHANNELS), num_classes, **(defaults | options))
    for tower in (model.head.classification_head.conv, model.head.regression_head.conv):
        for module in tower.modules():
            if isinstance(module, nn.Conv2d):  # the usual 0.01 fades in towers this narrow
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model


@ARCHITECTURES.register("fcos_regnet_small_fpn")
def fcos_regnet_small_fpn(num_classes: int, **options: Any) -> FCOS:
    """FCOS (Tian et al. 2019) on the small trunk; num_classes and options as for RetinaNet."""
    sides = ((8,), (16,), (32,), (64,))
    defaults: dict[str, Any] = {
        **SIZES,
        "anchor_generator": AnchorGenerator(sides, ((1.0,),) * len(sides)),
        "detections_per_img": 50,
        "score_thresh": 0.05,
    }
    return FCOS(_pyramid(FCOS_CHANNELS), num_classes, **(defaults | options))


class Trunk(nn.Module):
    """The trunk's stages 2 to 4 and one more: maps [B, C, h, w] at strides 8, 16, 32 and 64."""

    def __init__(self) -> None:
        super().__init__()
        body = regnet_small_fpn_backbone_body()
        body.add_module(
            "extra", Conv2dNormActivation(STAGE_WIDTHS[-1], EXTRA_WIDTH, kernel_size=3, stride=2)
        )
        names = [*(f"block{stage}" for stage in STAGES), "extra"]
        self.body = IntermediateLayerGetter(
            body, {name: str(place) for place, name in enumerate(names)}
        )
        self.out_channels = [*(STAGE_WIDTHS[stage - 1] for stage in STAGES), EXTRA_WIDTH]

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Maps by name of pictures [B, 3, h, w]."""
        maps: dict[str, Tensor] = self.body(pictures)
        return maps


@ARCHITECTURES.register("ssdlite_regnet_small")
def ssdlite_regnet_small(num_classes: int, **options: Any) -> SSD:
    """SSD (Liu et al. 2016) with SSDlite's heads (Sandler et al. 2018) on the small trunk; pictures
    are resized to 320 x 320. num_classes counts the background; options: SSD's own."""
    trunk = Trunk()
    anchors = DefaultBoxGenerator([[2]] * len(trunk.out_channels), scales=SSD_SCALES)
    head = SSDLiteHead(
        trunk.out_channels, anchors.num_anchors_per_location(), num_classes, nn.BatchNorm2d
    )
    defaults: dict[str, Any] = {
        "size": (SSD_SIZE, SSD_SIZE),
        "head": head,
        "score_thresh": 0.05,
        "nms_thresh": 0.5,
        "detections_per_img": 50,
    }
    return SSD(trunk, anchors, num_classes=num_classes, **(defaults | options))
