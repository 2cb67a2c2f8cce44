"""Small detectors that learn on two processor cores, to measure each family on.

A model file: `python -m archives build --model-file jobs/demo/small_detectors.py` puts it into the
archive of a detector that `python -m jobs.demo.train --architecture` trained. They share the trunk
of the demo's Faster R-CNN, so that they can begin with its weights.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import Conv2dNormActivation

from handlers.detectors.layouts import Layout
from handlers.detectors.letterbox import NetworkInput
from handlers.detectors.registry import ARCHITECTURES, build_model
from handlers.detectors.small import STAGE_WIDTHS, regnet_small_fpn_backbone
from handlers.detectors.yolo import YOLOLike

# The pyramid leaves out the trunk's first stage: strides 8, 16, 32 and 64 px.
STAGES = (2, 3, 4)
RETINANET_CHANNELS = 48
FCOS_CHANNELS = 64  # its heads normalise 32 groups
SIZES = {"min_size": 320, "max_size": 448}
SSD_SIZE = 320
# Shares of the picture: the side of an anchor on each map, and of one beyond the last.
SSD_SCALES = [0.08, 0.16, 0.3, 0.5, 0.75]
EXTRA_WIDTH = 128
# ImageNet's, of values 0 ... 255: what the demo's trunk was trained with.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
YOLO_CHANNELS, YOLO_STRIDES = 64, (8, 16, 32, 64)
RARE = 0.01  # the first score of every category, as RetinaNet begins
GREATEST_LOG = 5.0  # of a distance in strides
# RT-DETR's parts, each a fraction of the published ones.
RT_DETR: dict[str, Any] = {
    "model_type": "rt_detr",
    "d_model": 96,
    "encoder_hidden_dim": 96,
    "encoder_in_channels": [STAGE_WIDTHS[stage - 1] for stage in STAGES],
    "encoder_ffn_dim": 192,
    "encoder_attention_heads": 3,
    "hidden_expansion": 0.5,
    "decoder_in_channels": [96, 96, 96],
    "decoder_ffn_dim": 192,
    "decoder_layers": 3,
    "decoder_attention_heads": 3,
    "num_queries": 60,
    "num_denoising": 40,
    "freeze_backbone_batch_norms": False,
    # Never run: the trunk takes its place. Its maps have the trunk's widths.
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 8,
        "hidden_sizes": STAGE_WIDTHS,
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    },
}
RT_DETR_SIZE = 320
WELL_BEGUN = ("class_embed", "score_head", "encoder_attn")


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


class YOLOHead(nn.Module):
    """The decoupled head of YOLOX and its successors (Ge et al. 2021), its weights shared by all
    maps as RTMDet's are but for the normalisation: logits and distances to the four edges."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classify, self.regress = (
            nn.ModuleList(Conv2dNormActivation(channels, channels) for _ in YOLO_STRIDES)
            for _ in range(2)
        )
        self.classes = nn.Conv2d(channels, num_classes, 1)
        self.distances = nn.Conv2d(channels, 4, 1)
        nn.init.constant_(self.classes.get_parameter("bias"), -math.log((1 - RARE) / RARE))
        # Two strides, about an object's half.
        nn.init.constant_(self.distances.get_parameter("bias"), math.log(2))

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of maps [B, C, h, w] logits [B, K, h, w] and distances [B, 4, h, w] in strides."""
        several = zip(self.classify, self.regress, maps, strict=True)
        logits, logarithms = [], []
        for classify, regress, x in several:
            logits.append(self.classes(classify(x)))
            logarithms.append(self.distances(regress(x)))
        return logits, [each.float().clamp(max=GREATEST_LOG).exp() for each in logarithms]


class YOLONetwork(nn.Module):
    """The small trunk, its pyramid and the head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = _pyramid(YOLO_CHANNELS)
        self.head = YOLOHead(YOLO_CHANNELS, num_classes)

    def forward(self, tensors: Tensor) -> Any:
        """What the head gives for pictures [B, 3, h, w]."""
        return self.head([*self.backbone(tensors).values()])


@ARCHITECTURES.register("yolo_regnet_small_fpn")
def yolo_regnet_small_fpn(num_classes: int) -> YOLOLike:
    """An anchor-free YOLO on the small trunk; pictures are put on a canvas of 320 x 320 pixels.
    num_classes counts no background."""
    layout = Layout(
        head="head",
        strides=YOLO_STRIDES,
        order=("classes", "boxes"),
        boxes="distances",
        iou=0.5,
        detections=50,
        input=NetworkInput((320, 320), mean=MEAN, std=DEVIATION),
    )
    return YOLOLike(YOLONetwork(num_classes), layout, num_classes)


class TransformersTrunk(nn.Module):
    """The trunk's stages 2 to 4 as a backbone of the transformers library."""

    def __init__(self) -> None:
        super().__init__()
        self.body = IntermediateLayerGetter(
            regnet_small_fpn_backbone_body(), {f"block{stage}": str(stage) for stage in STAGES}
        )

    def forward(self, pictures: Tensor) -> SimpleNamespace:
        """Maps of pictures [B, 3, h, w], finest first, as `feature_maps`."""
        return SimpleNamespace(feature_maps=[*self.body(pictures).values()])


def _begin_as_published(model: nn.Module) -> None:
    """First weights as the paper's code has them. The library's, of deviation 0.01 even for the
    factors of batch normalisation, let pictures fade on their way to the decoder, which then learns
    nothing; its class heads' and its sampling's are the paper's."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear) and not any(part in name for part in WELL_BEGUN):
            nn.init.xavier_uniform_(module.weight)
            if "bbox" in name and name.endswith("layers.2"):  # boxes begin at their anchors
                nn.init.zeros_(module.weight)


@ARCHITECTURES.register("rt_detr_regnet_small")
def rt_detr_regnet_small(num_classes: int, **options: Any) -> nn.Module:
    """RT-DETR (Zhao et al. 2024) of the transformers library on the small trunk; pictures are
    resized to 320 x 320. num_classes counts no background; options: of its configuration."""
    size = {"height": RT_DETR_SIZE, "width": RT_DETR_SIZE}
    preprocessor = {"size": size, "do_normalize": True}
    arguments = {"config": RT_DETR | options, "preprocessor": preprocessor}
    model = build_model("transformers", num_classes, arguments)
    _begin_as_published(model)
    model.set_submodule("model.backbone.model", TransformersTrunk().eval())
    return model
