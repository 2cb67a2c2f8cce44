"""What a detector still finds on pictures of which parts are hidden: D-RISE's similarity.

All boxes of a picture share the masked runs, which go in batches that fit memory.
"""

from __future__ import annotations

import warnings
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
from handlers.memory import Batches, fitting, worthwhile
from handlers.schema import ExplainRequest

# A map's cell is at most so many pixels of the network input, and the shorter side has at least so
# many cells, two for each of a mask.
LARGEST_CELL = 8
LEAST_CELLS = 32
# As many masked pictures run at a time where nobody says, if they fit.
BATCH = {"cpu": 4, "cuda": 32}
# Bytes that an explanation takes for each cell of its map: two float64 sums, the finished map, and
# those of the boxes before it. Maps of so many bytes together are not parted, whatever is free.
BYTES_A_CELL = 40
FEW_BYTES = 2**27


def groups(question: Question, where: Where, request: ExplainRequest) -> Iterator[list[Piece]]:
    """One piece: all explanations on one grid over the picture. Where their maps do not fit memory
    together several, one after the other, each with a part of the boxes and runs of its own."""
    number = 1 if question.joint else len(question.chosen)
    start, told = 0, False
    while start < number:
        evidence = DetectorOnMasks(question, request)
        left = number - start
        each = BYTES_A_CELL * evidence.cells
        most, why = fitting(evidence.device, left, each, max(1, FEW_BYTES // each))
        if why and not told:
            told = True
            name = "candidates" if request.candidates else "max_detections"
            warnings.warn(
                f"{name}: the maps of {number} boxes at a time do not fit memory: {why}; taking"
                f" {most}, and the masked pictures again for those that are left",
                stacklevel=2,
            )
        if most < number:
            part = replace(question, chosen=question.chosen[start : start + most])
            evidence = DetectorOnMasks(part, request)
        places = torch.arange(start, start + most)
        yield [Piece(places, [evidence], [evidence.geometry] * most)]
        start += most


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
        left, top, right, bottom = self._inside
        self.height, self.width = bottom - top, right - left
        self.cell = max(1, min(LARGEST_CELL, min(self.height, self.width) // LEAST_CELLS))
        asked = self.scene.batch_size
        most = BATCH.get(self.device.type, 1)
        number = asked or worthwhile(self.device, most, self._pixels)
        name = "batch_size" if asked else None
        self._batches = Batches(self.device, number, self.scene.footprint, name)
        # Written over for each batch: fresh memory costs more than what is written.
        self._canvas = self._black[:0]

    @property
    def batch(self) -> int:
        """As many masks as it is worth to make at a time: no more than run together."""
        return self._batches.next(self._pixels)

    @property
    def _pixels(self) -> int:
        """Of the network input, padding and all: what one masked picture's memory goes by."""
        return self.scene.pixels.shape[-2] * self.scene.pixels.shape[-1]

    @property
    def cells(self) -> int:
        """Of a map."""
        return -(-self.height // self.cell) * -(-self.width // self.cell)

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
        return torch.stack([*self._batches.run(self._of_batch, masks, self._pixels)], 1)

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
