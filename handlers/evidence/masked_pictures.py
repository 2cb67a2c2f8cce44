"""What a detector still finds on pictures of which parts are hidden: D-RISE's similarity.

All boxes of a picture share the masked runs, which go in batches that fit memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from handlers.detectors.base import Found, Raw
from handlers.detectors.classifier import ClassifierDetector
from handlers.evidence.scene import Piece, Question, Where
from handlers.images import Geometry
from handlers.memory import Batches
from handlers.schema import ExplainRequest

# A map's cell is at most so many pixels of the network input, and the shorter side has at least so
# many cells, two for each of a mask.
LARGEST_CELL = 8
LEAST_CELLS = 32
# As many masked pictures run at a time, if they fit.
BATCH = {"cpu": 4, "cuda": 32}


def groups(question: Question, where: Where, request: ExplainRequest) -> Iterator[list[Piece]]:
    """One piece: all explanations on one grid over the picture."""
    evidence = DetectorOnMasks(question, request)
    number = 1 if question.joint else len(question.chosen)
    yield [Piece(torch.arange(number), [evidence], [evidence.geometry] * number)]


class DetectorOnMasks:
    """A MaskedPictures (handlers/cam/masks.py) of a scene's detector.

    What a mask hides becomes black in the picture's own colours, as in the paper: what the
    detector's own preparation makes of a black picture. Padding stays as it is.

    Of a joint question the one explanation is of all boxes, and its similarity the sum of theirs.
    """

    def __init__(self, question: Question, request: ExplainRequest) -> None:
        self.scene, self.chosen, self.joint = question.scene, question.chosen, question.joint
        self.masks, self.seed = request.masks, request.seed
        self.device = self.scene.pixels.device
        self.batch = BATCH.get(self.device.type, 1)
        left, top, right, bottom = self._inside
        self.height, self.width = bottom - top, right - left
        self.cell = max(1, min(LARGEST_CELL, min(self.height, self.width) // LEAST_CELLS))
        self._batches = Batches(self.device, self.batch, name=None)
        # Written over for each batch: fresh memory costs more than what is written.
        self._canvas = self._black[:0]

    @cached_property
    def _inside(self) -> tuple[int, int, int, int]:
        """left, top, right, bottom of the picture on the network input, in pixels."""
        frame = self.scene.found.frame
        size = [0.0, 0.0, frame.picture_width, frame.picture_height]
        x1, y1, x2, y2 = frame.boxes_on_frame(torch.tensor([size]).double())[0].tolist()
        height, width = self.scene.pixels.shape[-2:]
        left, right = (min(max(round(each), 0), width) for each in sorted((x1, x2)))
        top, bottom = (min(max(round(each), 0), height) for each in sorted((y1, y2)))
        return left, top, max(right, left + 1), max(bottom, top + 1)

    @property
    def geometry(self) -> Geometry:
        """Where a map lies on the picture."""
        left, top, _, _ = self._inside
        frame = self.scene.found.frame
        return replace(
            frame,
            frame_width=float(self.cell * -(-self.width // self.cell)),
            frame_height=float(self.cell * -(-self.height // self.cell)),
            offset_x=frame.offset_x - left,
            offset_y=frame.offset_y - top,
        )

    @cached_property
    def _black(self) -> Tensor:
        return self._of_one_colour(0, 0, 0)

    def _of_one_colour(self, *colour: int) -> Tensor:
        """The network input [1, 3, h, w] of a picture of this size and one colour."""
        frame = self.scene.found.frame
        values = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
        picture = values.expand(3, frame.picture_height, frame.picture_width).contiguous()
        return self.scene.detector.prepare(picture).tensors

    def picture(self) -> Tensor:
        """RGB [3, height, width], 0 ... 1, on the CPU: the network input without its normalisation,
        which pictures of one colour show."""
        left, top, right, bottom = self._inside
        y, x = (top + bottom) // 2, (left + right) // 2
        black = self._black[0, :, y, x]
        primaries = [
            self._of_one_colour(*(255 * (each == channel) for each in range(3)))[0, :, y, x] - black
            for channel in range(3)
        ]
        to_rgb = torch.linalg.inv(torch.stack(primaries, 1).double().cpu()).float()
        return torch.einsum("ij,jhw->ihw", to_rgb, self._content[0].cpu()).clamp(0, 1)

    def similarities(self, masks: Tensor) -> Tensor:
        """[N, B] of masks [B, height, width]: max_j IoU(box, box_j) cos(P, P_j) O_j over all boxes
        that are reported on the masked picture, 0 if none is.

        P: the scores of all categories of the candidate behind a box, as they are reported; the
        background is left out, so that the cosine compares objects. O: the objectness where a
        detector has one in its scores (YOLO-like); the paper leaves it out for the others. A
        classifier draws no boxes: there it is RISE's, the score of the category.
        """
        pixels = masks.shape[-2] * masks.shape[-1]
        return torch.stack([*self._batches.run(self._of_batch, masks, pixels)], 1)

    def _of_batch(self, masks: Tensor) -> list[Tensor]:
        if len(self._canvas) < len(masks):
            self._canvas = self._black.repeat(len(masks), 1, 1, 1)
        pixels = self._canvas[: len(masks)]
        black, inside = self._black[self._window], pixels[self._window]
        torch.addcmul(black, masks[:, None], self._content, out=inside)
        return [self._of_one(each) for each in self.scene.found_in(pixels)]

    @cached_property
    def _window(self) -> tuple[slice, ...]:
        """Of the network input [B, 3, h, w] the part that the picture has."""
        left, top, right, bottom = self._inside
        return slice(None), slice(None), slice(top, bottom), slice(left, right)

    @cached_property
    def _content(self) -> Tensor:
        """What the picture [1, 3, height, width] has that a black one has not."""
        return (self.scene.pixels - self._black)[self._window]

    def _of_one(self, found: Found) -> Tensor:
        """[N] of one masked picture."""
        if isinstance(self.scene.detector, ClassifierDetector):
            similarity: Tensor = found.raw.scores[0, self.chosen.labels]
        else:
            similarity = self._best_match(found)
        return similarity.sum()[None] if self.joint else similarity

    def _best_match(self, found: Found) -> Tensor:
        candidate = found.kept.entries.candidate
        if not len(candidate):
            return self._categories.new_zeros(len(self.chosen))
        # Boxes without an area have no IoU with each other.
        match = box_iou(self._boxes, found.kept.boxes).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
        match = match * (self._categories @ self._directions(found.raw, candidate).T)
        if self._has_objectness:
            scores = found.raw.scores[candidate].sum(1)
            match = match * (scores / found.raw.logits[candidate].sigmoid().sum(1).clamp(min=1e-12))
        best: Tensor = match.amax(1)
        return best

    @cached_property
    def _boxes(self) -> Tensor:
        """In pixels of the picture, as they are reported: IoU is measured there."""
        return self.scene.found.features.inputs.on_picture(self.chosen.boxes)

    @cached_property
    def _categories(self) -> Tensor:
        return self._directions(self.scene.found.raw, self.chosen.candidate)

    @cached_property
    def _has_objectness(self) -> bool:
        """The reported score is the category's times the objectness."""
        kinds = self.scene.detector.parts().values()
        return any({"logits", "objectness"} <= set(kind.outputs) for kind in kinds)

    def _directions(self, raw: Raw, candidate: Tensor) -> Tensor:
        """The scores [n, K] of candidates, without the background, each of length 1 (or 0)."""
        first = self.scene.detector.first_label
        return F.normalize(raw.scores[candidate, first:], dim=1)
