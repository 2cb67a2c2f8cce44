"""Ground truth in PASCAL VOC's form: an XML file for each picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from archives.errors import UsageError
from jobs.scoring.matching import overlaps
from jobs.truth.annotation_files import AnnotationFolder, Place, fingerprint, number, shown
from jobs.truth.objects import Objects
from jobs.truth.plain_xml import Element, XmlError, parse_xml

ANNOTATIONS, MASKS = "Annotations", "SegmentationObject"
EDGES = ("xmin", "ymin", "xmax", "ymax")
KEPT = 8  # pictures whose objects are not read again
LARGEST_MASK_FILE = 64 * 2**20
LEAST_OVERLAP = 0.5  # of an object's box with its mask's
BORDER = 255  # a mask's pixels between objects, which are nobody's


class VocTruth:
    """The objects of pictures by Annotations/NAME.xml.

    VOC counts pixels from 1, and a box's xmax and ymax are the last that belong to it. Boxes here
    are edges between pixels, from 0: x1 = xmin - 1, y1 = ymin - 1, x2 = xmax, y2 = ymax. So their
    plain IoU (`pixel` 0 of jobs.scoring.matching) is what VOC's own program gets with its "+ 1"
    from the same pixels, and xmin = xmax is one column of pixels. Such boxes are kept, and boxes
    that stick out of the picture, too.

    Truncated and occluded objects are objects; difficult ones count neither way (0 where that is
    not said). Parts of objects are none. Masks come from SegmentationObject/NAME.png beside
    Annotations, where there is one: each object has the segment whose box overlaps its own most.
    categories: those given; VOC has no list of its own.
    """

    form = "voc"

    def __init__(self, folder: Place, categories: Sequence[str] = (), masks: bool = True) -> None:
        """folder: Annotations itself. masks: whether they are read."""
        parent = folder.parent()
        self.categories = tuple(categories)
        self.folder = AnnotationFolder(folder.store(), ".xml")
        self.mask_folder = (
            AnnotationFolder(parent.below(MASKS).store(), ".png", LARGEST_MASK_FILE)
            if masks and parent is not None
            else None
        )
        self._read = lru_cache(KEPT)(self._objects)

    def fingerprint(self) -> str:
        """As jobs.truth.objects.Truth has it."""
        folders = filter(None, (self.folder, self.mask_folder))
        entries = (entry for each in folders for entry in each.entries())
        return fingerprint(entries, self.categories)

    def objects(self, key: str) -> Objects | None:
        """As jobs.truth.objects.Truth has it."""
        return self._read(key)

    def _objects(self, key: str) -> Objects | None:
        found = self.folder.read(key)
        if found is None:
            return None
        address, data = found
        try:
            root = parse_xml(data)
        except XmlError as error:
            raise UsageError(f"{shown(address)}, {error}") from error
        if root.tag != "annotation":
            raise UsageError(
                f"{shown(address)}: expected VOC's <annotation>, got <{shown(root.tag)}>"
            )
        things = list(root.all("object"))
        boxes = np.array([_box(each, address) for each in things]).reshape(-1, 4)
        return Objects(
            boxes,
            tuple(_name(each, address) for each in things),
            np.array([_flag(each, "difficult", address) for each in things], dtype=np.bool_),
            np.zeros(len(things), dtype=np.bool_),
            self._masks(key, root, boxes, address),
        )

    def _masks(
        self, key: str, root: Element, boxes: NDArray[np.float64], address: str
    ) -> tuple[NDArray[np.bool_] | None, ...]:
        none = (None,) * len(boxes)
        if self.mask_folder is None or not len(boxes) or not _flag(root, "segmented", address):
            return none
        found = self.mask_folder.read(key)
        return none if found is None else segments(found[1], boxes, found[0])


def segments(
    data: bytes, boxes: NDArray[np.float64], address: str
) -> tuple[NDArray[np.bool_] | None, ...]:
    """For each of boxes [N, 4] the segment of a VOC mask (a PNG with a palette, whose pixels are
    objects' numbers) whose box overlaps it most, one to one, the best pair first; None where none
    overlaps by half. Raises UsageError for what is no such PNG."""
    from handlers.images import MAX_PIXELS  # with torch, which boxes alone do not need

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode not in ("P", "L") or image.width * image.height > MAX_PIXELS:
                raise UsageError(
                    f"{shown(address)}: expected a PNG with a palette and at most {MAX_PIXELS:,}"
                    f" pixels, got mode {image.mode} and {image.width} x {image.height}"
                )
            numbers = np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{shown(address)}: no PNG that can be read ({error})") from error
    masks = [numbers == each for each in np.unique(numbers) if each not in (0, BORDER)]
    around = np.array([_around(each) for each in masks]).reshape(-1, 4)
    shares = overlaps(boxes, around)
    found: list[NDArray[np.bool_] | None] = [None] * len(boxes)
    while shares.size and shares.max() >= LEAST_OVERLAP:
        box, segment = np.unravel_index(shares.argmax(), shares.shape)
        found[int(box)] = masks[int(segment)]
        shares[box, :] = shares[:, segment] = 0
    return tuple(found)


def _around(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _box(thing: Element, address: str) -> list[float]:
    box = thing.first("bndbox")
    if box is None:
        raise UsageError(f"{shown(address)}, line {thing.line}: an object without <bndbox>")
    edges = []
    for tag in EDGES:
        edge = box.first(tag)
        if edge is None:
            raise UsageError(f"{shown(address)}, line {box.line}: a <bndbox> without <{tag}>")
        edges.append(number(edge.text, f"{shown(address)}, line {edge.line}, <{tag}>"))
    x1, y1, x2, y2 = edges
    if x2 < x1 or y2 < y1:
        raise UsageError(
            f"{shown(address)}, line {box.line}: expected xmin <= xmax and ymin <= ymax, got"
            f" {x1:g}, {y1:g}, {x2:g}, {y2:g}"
        )
    return [x1 - 1, y1 - 1, x2, y2]


def _name(thing: Element, address: str) -> str:
    name = thing.first("name")
    if name is None or not name.text:
        raise UsageError(f"{shown(address)}, line {thing.line}: an object without a <name>")
    return name.text


def _flag(element: Element, tag: str, address: str) -> bool:
    found = element.first(tag)
    if found is not None and found.text not in ("", "0", "1"):
        raise UsageError(
            f"{shown(address)}, line {found.line}, <{tag}>: expected 0 or 1, got"
            f" {shown(found.text)!r}"
        )
    return found is not None and found.text == "1"
