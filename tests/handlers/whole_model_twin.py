"""Every target on every layer again, the slow way: the stock model's own `forward` with its graph,
and plain autograd for one box at a time.

Nothing here uses the four verbs or their provenance. What a box came from is found by decoding all
that the heads gave and looking for that box. Formulas of the methods are those of `slow_twin`.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.handlers.slow_twin import FORMULAS

EDGES = ("x1", "y1", "x2", "y2")
# Targets whose map is the elementwise maximum of several scalars' maps.
SEVERAL = {"box": EDGES, "combined": ("class", *EDGES)}
TWO_STAGE = (
    *("rpn", "rpn.head", "rpn.anchor_generator"),
    *("roi_heads.box_roi_pool", "roi_heads.box_predictor"),
    *("roi_heads.mask_roi_pool", "roi_heads.mask_predictor"),
    *("roi_heads.keypoint_roi_pool", "roi_heads.keypoint_predictor"),
)
ONE_STAGE = ("head", "anchor_generator")


class Heat:
    """heatmap: [h, w], cut at zero. size: the largest magnitude before, which rounding goes by."""

    def __init__(self, maps: Sequence[Tensor]) -> None:
        together = torch.stack(list(maps)).amax(0)
        self.heatmap = together.clamp(min=0)
        self.size = max(float(each.abs().max()) for each in maps)


class WholeModelTwin:
    """One picture through the stock model; then boxes, targets, layers and methods at will."""

    def __init__(self, model: Any, picture: Tensor, modules: Sequence[str] = ()) -> None:
        """modules: names whose output will be asked for."""
        self.model = model
        self.two_stage = hasattr(model, "roi_heads")
        self.calls: dict[str, list[Any]] = defaultdict(list)
        own = TWO_STAGE if self.two_stage else ONE_STAGE
        names = [name for name, _ in model.named_modules()]
        watched = {"backbone", *own, *modules} & set(names)
        handles = [
            model.get_submodule(name).register_forward_hook(self._catcher(name)) for name in watched
        ]
        handles.append(model.transform.register_forward_hook(self._catcher("transform")))
        # Differentiable from the picture on, whatever the parameters ask for.
        leaf = (picture.float() / 255).requires_grad_()
        try:
            with torch.enable_grad():
                self.found: dict[str, Tensor] = model.eval()([leaf])[0]
        finally:
            for handle in handles:
                handle.remove()
        height, width = self.calls["transform"][0][0].image_sizes[0]
        self.size = (height, width)
        ratios = (picture.shape[-1] / width, picture.shape[-2] / height)
        self.ratio = torch.tensor(ratios * 2)  # of picture pixels to those of the network input
        maps = self.calls["backbone"][0]
        self.maps = list(maps.values()) if isinstance(maps, dict) else [maps]
        self.names = list(maps) if isinstance(maps, dict) else ["0"]
        self._gradients: dict[tuple[str, tuple[int, ...], str], tuple[Tensor, Tensor]] = {}
        self._candidates: dict[int, int] = {}

    def _catcher(self, name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            # What is caught must be upstream of all that follows, and out of reach of an in-place
            # ReLU; and maps that were made of one another must not be upstream of each other.
            caught = _copy(output)
            self.calls[name].append(caught)
            return _copy(caught)

        return hook

    def place(self, box: Sequence[float], label: int, score: float) -> int:
        """The stock model's detection with exactly this box and label."""
        same = (self.found["boxes"] == torch.tensor(box)).all(1) & (self.found["labels"] == label)
        places = torch.where(same)[0]
        assert len(places), f"the stock model has no box {box} of label {label}"
        nearest = (self.found["scores"][places].detach() - score).abs().argmin()
        return int(places[nearest])

    def heatmap(self, places: Sequence[int], method: str, target: str, layer: str) -> Heat:
        """Of the sum over detections of the target's scalars, one after the other."""
        pairs = [
            self.gradient(tuple(places), scalar, layer) for scalar in SEVERAL.get(target, [target])
        ]
        return Heat([FORMULAS[method](activation, gradient) for activation, gradient in pairs])

    def gradient(self, places: tuple[int, ...], scalar: str, layer: str) -> tuple[Tensor, Tensor]:
        """(activation, gradient) of the scalars' sum, [C, h, w] each."""
        key = (scalar, places, layer)
        if key not in self._gradients:
            value = torch.stack([self.scalar(scalar, place) for place in places]).sum()
            self._gradients[key] = self._differentiate(value, scalar, places[0], layer)
        return self._gradients[key]

    def differentiate(self, value: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """The same for any value made of `found`, on a module of the backbone."""
        return self._differentiate(value, "", 0, layer)

    def _differentiate(
        self, value: Tensor, scalar: str, place: int, layer: str
    ) -> tuple[Tensor, Tensor]:
        leaves, row = self._leaves(scalar, place, layer)
        found = torch.autograd.grad(
            value.sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        activations = [leaf.detach() for leaf in leaves]
        gradients = list(found)
        if layer == "pyramid":
            size = activations[-1].shape[-2:]
            gradients = [g * a.sign() for g, a in zip(gradients, activations, strict=True)]
            activations, gradients = (
                [F.interpolate(each, size, mode="bilinear", align_corners=False) for each in many]
                for many in ([each.abs() for each in activations], gradients)
            )
        return torch.cat(activations, 1)[row], torch.cat(gradients, 1)[row]

    def _leaves(self, scalar: str, place: int, layer: str) -> tuple[list[Tensor], int]:
        """The tensors that a layer stands for, and the row of them that is the detection's."""
        if layer == "pyramid":
            return self.maps, 0
        if layer == "emitting":
            return [self.maps[self.level(scalar, place)]], 0
        part = scalar.partition(":")[0]
        row = place if part in ("mask", "keypoint") else self.candidate(place)
        if layer == "roi":
            pool = part if part in ("mask", "keypoint") else "box"
            return self.calls[f"roi_heads.{pool}_roi_pool"][:1], row
        calls = self.calls[layer]
        if layer.startswith("roi_heads"):
            return calls[-1:], row
        if layer.startswith("backbone") or len(calls) < len(self.maps):
            return calls[-1:], 0
        each_level = len(calls) // len(self.maps)
        return [calls[(self.level(scalar, place) + 1) * each_level - 1]], 0

    def scalar(self, name: str, place: int) -> Tensor:
        """One detection's scalar; edges in pixels of the network input."""
        label = int(self.found["labels"][place])
        edges = (self.found["boxes"][place] / self.ratio).unbind()
        corners: dict[str, Tensor] = dict(zip(EDGES, edges, strict=True))
        part, _, number = name.partition(":")
        if part in corners:
            return corners[part]
        if part == "width":
            return corners["x2"] - corners["x1"]
        if part == "height":
            return corners["y2"] - corners["y1"]
        if part == "probability":
            return self.found["scores"][place]
        if part == "class":
            return self._logits()[self.candidate(place), label]
        if part == "centerness":
            return self._dense("bbox_ctrness")[self.candidate(place), 0]
        if part == "objectness":
            return self._anchors()[1][self._anchor(place)]
        if part == "mask":
            logits: Tensor = self.calls["roi_heads.mask_predictor"][0][place, label]
            return logits[logits > 0].mean() if (logits > 0).any() else 0 * logits.sum()
        assert part == "keypoint", name
        peaks = torch.stack(
            [each.max() for each in self.calls["roi_heads.keypoint_predictor"][0][place]]
        )
        return peaks[int(number)] if number else peaks.mean()

    def level(self, scalar: str, place: int) -> int:
        """Which map emits this scalar of a detection."""
        part = scalar.partition(":")[0]
        if not self.two_stage:
            return self._level_of_anchor(self.candidate(place))
        if part == "objectness":
            return self._level_of_anchor(self._anchor(place))
        if part in ("mask", "keypoint"):
            frame = self.found["boxes"][place] / self.ratio
            pool = getattr(self.model.roi_heads, f"{part}_roi_pool")
        else:
            frame = self._proposals()[self.candidate(place)]
            pool = self.model.roi_heads.box_roi_pool
        names = [name for name in pool.featmap_names if name in self.names]
        if len(names) == 1:
            return self.names.index(names[0])
        # Equation 1 of the FPN paper (Lin et al. 2017); the first map's stride is 2 to its number.
        x1, y1, x2, y2 = frame.tolist()
        side = max((x2 - x1) * (y2 - y1), 1e-12) ** 0.5
        octave = torch.tensor(side / pool.canonical_scale).log2() + pool.canonical_level + 1e-6
        first = round(float(-torch.tensor(pool.scales[0]).log2()))
        which = min(max(int(octave.floor()) - first, 0), len(names) - 1)
        return self.names.index(names[which])

    def candidate(self, place: int) -> int:
        """The proposal or anchor whose decoded box is the detection's; the best by score of several
        with the same box."""
        if place not in self._candidates:
            label = int(self.found["labels"][place])
            logits = self._logits().detach()
            if self.two_stage:
                coded = self.calls["roi_heads.box_predictor"][0][1].detach()
                decoded = self.model.roi_heads.box_coder.decode(coded, [self._proposals()])
                boxes, scores = decoded[:, label], logits.softmax(-1)[:, label]
            else:
                anchors = self.calls["anchor_generator"][0][0]
                coder = self.model.box_coder
                decode = getattr(coder, "decode_single", coder.decode)
                boxes = decode(self._dense("bbox_regression").detach(), anchors)
                scores = self._one_stage_scores(logits)[:, label]
            self._candidates[place] = self._match(boxes, scores, place)
        return self._candidates[place]

    def _one_stage_scores(self, logits: Tensor) -> Tensor:
        name = type(self.model).__name__
        if name == "FCOS":
            return (logits.sigmoid() * self._dense("bbox_ctrness").detach().sigmoid()).sqrt()
        return logits.softmax(-1) if name == "SSD" else logits.sigmoid()

    def _match(self, boxes: Tensor, scores: Tensor, place: int) -> int:
        distance = (self._clip(boxes) * self.ratio - self.found["boxes"][place]).abs().amax(1)
        wrong = (scores - self.found["scores"][place]).abs().detach()
        total = distance.detach() + wrong
        assert float(total.min()) < 1e-3, "no candidate has this box and score"
        return int(torch.where(distance < 1e-3, wrong, torch.inf).argmin())

    def _anchor(self, place: int) -> int:
        """The anchor that the detection's proposal came from."""
        boxes, objectness = self._anchors()
        distance = (boxes - self._proposals()[self.candidate(place)]).abs().amax(1)
        assert float(distance.min()) < 1e-3
        return int(torch.where(distance < 1e-3, objectness.detach(), -torch.inf).argmax())

    def _anchors(self) -> tuple[Tensor, Tensor]:
        """All anchors as the region proposal network moved them [R, 4], and their logits [R]."""
        logits, coded = self.calls["rpn.head"][0]
        flat = [each[0].permute(1, 2, 0).reshape(-1) for each in logits]
        deltas = []
        for each in coded:
            _, channels, height, width = each.shape
            per_anchor = each.detach()[0].view(channels // 4, 4, height, width)
            deltas.append(per_anchor.permute(2, 3, 0, 1).reshape(-1, 4))
        anchors = self.calls["rpn.anchor_generator"][0]
        boxes = self.model.rpn.box_coder.decode(torch.cat(deltas), anchors).view(-1, 4)
        return self._clip(boxes), torch.cat(flat)

    def _level_of_anchor(self, anchor: int) -> int:
        generator = (self.model.rpn if self.two_stage else self.model).anchor_generator
        for level, (maps, number) in enumerate(
            zip(self.maps, generator.num_anchors_per_location(), strict=True)
        ):
            anchor -= maps.shape[-2] * maps.shape[-1] * number
            if anchor < 0:
                return level
        raise AssertionError("more anchors than the maps have")

    def _clip(self, boxes: Tensor) -> Tensor:
        height, width = self.size
        return torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]))

    def _logits(self) -> Tensor:
        if self.two_stage:
            logits: Tensor = self.calls["roi_heads.box_predictor"][0][0]
            return logits
        return self._dense("cls_logits")

    def _dense(self, name: str) -> Tensor:
        values: Tensor = self.calls["head"][0][name]
        return values[0]

    def _proposals(self) -> Tensor:
        proposals: Tensor = self.calls["rpn"][0][0][0]
        return proposals


def box_score_by_hand(labels: list[int], boxes: Tensor, outputs: dict[str, Tensor]) -> Tensor:
    """FasterRCNNBoxScoreTarget's definition, number by number: its boxes [N, 4] and labels against
    what a detector returned."""
    total = torch.zeros(())
    for label, (x1, y1, x2, y2) in zip(labels, boxes.tolist(), strict=True):
        overlaps = []
        for other in outputs["boxes"]:
            wide = other[2].clamp(max=x2) - other[0].clamp(min=x1)
            high = other[3].clamp(max=y2) - other[1].clamp(min=y1)
            both_areas = (x2 - x1) * (y2 - y1) + (other[2] - other[0]) * (other[3] - other[1])
            shared = wide.clamp(min=0) * high.clamp(min=0)
            overlaps.append(shared / (both_areas - shared))
        best = max(range(len(overlaps)), key=lambda place: float(overlaps[place].detach()))
        if overlaps[best] > 0.5 and int(outputs["labels"][best]) == label:
            total = total + overlaps[best] + outputs["scores"][best]
    return total


def _copy(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    if isinstance(output, dict):
        return OrderedDict((name, _copy(each)) for name, each in output.items())
    if isinstance(output, (list, tuple)):
        return type(output)(_copy(each) for each in output)
    return output  # an ImageList: nothing here changes it
