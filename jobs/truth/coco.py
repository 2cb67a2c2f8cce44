"""Ground truth in COCO's form: one JSON file of all pictures' instances."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archives.errors import UsageError
from jobs.truth.annotation_files import Place, as_stored, decoded, fingerprint, is_text, shown
from jobs.truth.json_lists import JsonLists
from jobs.truth.masks import is_number, polygon_mask, run_length_mask
from jobs.truth.objects import Objects

LARGEST_FILE = 4 * 2**30
# Of an instance, in the table of all.
BOX, AREA, PICTURE, CATEGORY, CROWD, PLACE = slice(0, 4), 4, 5, 6, 7, 8
WIDTH = 9


class CocoTruth:
    """The objects of pictures by an instances JSON.

    A picture is the one of "images" whose file_name is its key or the end of its key, or ends with
    its key, whole folders compared (train2017/1.jpg is data/train2017/1.jpg and 1.jpg); if there is
    none, the one with its name without folders and ending. Where two could be meant that is an
    error.

    Boxes are bbox as it is: x, y, x + width, y + height, edges between pixels. Crowds count neither
    way; nothing is difficult. Masks (polygons, run lengths, compressed ones) are decoded when a
    picture is asked for. Held are the file's text and 72 bytes an instance.
    categories: names in the order of their ids.
    """

    form = "coco"

    def __init__(self, file: Place, masks: bool = True) -> None:
        """file: the instances. masks: whether they are decoded. Raises UsageError for another file,
        or an instance that is none."""
        self.address = f"{file.root.uri.rstrip('/')}/{file.path}"
        entry = file.root.find(file.path)
        if entry is not None and entry.size > LARGEST_FILE:
            raise self._error("the file", f"expected at most {LARGEST_FILE:,} bytes")
        self._entry = entry
        self.with_masks = masks
        self.lists = JsonLists(decoded(file.root.read(file.path), self.address))
        self.pictures: list[dict[str, Any]] = []
        names: dict[int, str] = {}
        numbers = self._read(names)
        self.categories = tuple(names[each] for each in sorted(names))
        self._names = names
        self._rows = self._sorted(numbers)
        self._by_name = _grouped(_base(each["file_name"]) for each in self.pictures)
        self._by_stem = _grouped(_stem(each["file_name"]) for each in self.pictures)

    def _read(self, names: dict[int, str]) -> array[float]:
        """Fills pictures and names, and gives WIDTH numbers for each instance."""
        numbers = array("d")
        met = set()
        readers: dict[str, Callable[[Any, int], None]] = {
            "images": self._picture,
            "categories": lambda value, place: self._category(value, names),
            "annotations": lambda value, place: numbers.extend(self._instance(value, place)),
        }
        try:
            for name, value, place in self.lists.elements():
                met.add(name)
                if name in readers:
                    if not isinstance(value, dict):
                        raise self._error(name, "expected objects", value)
                    readers[name](value, place)
        except ValueError as error:
            raise UsageError(f"{shown(self.address)}: no JSON of COCO's form: {error}") from error
        if not self.pictures or not names:
            raise self._error(
                "the file", "expected COCO's images, annotations and categories", sorted(met)
            )
        return numbers

    def _picture(self, value: dict[str, Any], place: int) -> None:
        name = value.get("file_name")
        if not isinstance(name, str) or not _base(name):
            raise self._error("a picture", "expected a file_name", value)
        kept = {each: value.get(each) for each in ("width", "height")}
        self.pictures.append(
            {"id": self._whole(value, "id", "a picture"), "file_name": name, **kept}
        )

    def _category(self, value: dict[str, Any], names: dict[int, str]) -> None:
        name = value.get("name")
        number = self._whole(value, "id", "a category")
        if not isinstance(name, str) or not name or number in names:
            raise self._error("a category", "expected a name, and an id of its own", value)
        if not is_text(name):
            raise self._error("a category", "expected a name without lone surrogates", name)
        names[number] = name

    def _instance(self, value: dict[str, Any], place: int) -> list[float]:
        what = f"annotation {shown(str(value.get('id')))}"
        box = value.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            raise self._error(what, "expected a bbox of four numbers", box)
        if box[2] < 0 or box[3] < 0:
            raise self._error(what, "expected a bbox of no negative width or height", box)
        area = value.get("area")
        crowd = value.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise self._error(what, "expected an iscrowd of 0 or 1", crowd)
        return [
            *(box[0], box[1], box[0] + box[2], box[1] + box[3]),
            math.nan if area is None else float(self._number(area, "area", what)),
            self._whole(value, "image_id", what),
            self._whole(value, "category_id", what),
            crowd,
            place,
        ]

    def _sorted(self, numbers: array[float]) -> NDArray[np.float64]:
        """The instances by their picture; those of one in the file's order. Its picture is its
        place in `pictures` from here on."""
        rows = np.array(numbers, dtype=np.float64).reshape(-1, WIDTH)
        ids = np.array([each["id"] for each in self.pictures], dtype=np.float64)
        order = np.argsort(ids, kind="stable")
        if (np.diff(ids[order]) == 0).any():
            raise self._error("images", "expected each picture's id to be its own")
        for column, known, name in (
            (PICTURE, ids, "image_id of images"),
            (CATEGORY, list(self._names), "category_id of categories"),
        ):
            unknown = rows[~np.isin(rows[:, column], known), column]
            if len(unknown):
                raise self._error("annotations", f"expected an {name}", int(unknown[0]))
        rows[:, PICTURE] = order[np.searchsorted(ids[order], rows[:, PICTURE])]
        return rows[np.argsort(rows[:, PICTURE], kind="stable")]

    def fingerprint(self) -> str:
        """As jobs.truth.objects.Truth has it."""
        return fingerprint([self._entry] if self._entry else [], self.categories)

    def objects(self, key: str) -> Objects | None:
        """As jobs.truth.objects.Truth has it."""
        place = self._place(key)
        if place is None:
            return None
        first, last = np.searchsorted(self._rows[:, PICTURE], [place, place + 1])
        rows = self._rows[first:last]
        return Objects(
            rows[:, BOX].copy(),
            tuple(self._names[int(each)] for each in rows[:, CATEGORY]),
            np.zeros(len(rows), dtype=np.bool_),
            rows[:, CROWD] == 1,
            tuple(self._mask(int(each), self.pictures[place]) for each in rows[:, PLACE]),
            rows[:, AREA].copy(),
        )

    def _place(self, key: str) -> int | None:
        """Of a picture in `pictures`."""
        for each in dict.fromkeys((key, as_stored(key))):
            same = [
                place
                for place in self._by_name.get(_base(each), ())
                if _same_end(each, self.pictures[place]["file_name"])
            ]
            # Another ending is another form of the picture; another folder is another picture.
            found = same or [
                place
                for place in self._by_stem.get(_stem(each), ())
                if _same_end(_bare(each), _bare(self.pictures[place]["file_name"]))
            ]
            if len(found) > 1:
                names = ", ".join(shown(self.pictures[place]["file_name"]) for place in found[:3])
                raise self._error(
                    f"the picture {shown(key)}",
                    f"{len(found)} could be meant ({names}); expected keys with their folders: give"
                    " an --input further up",
                )
            if found:
                return found[0]
        return None

    def _mask(self, place: int, picture: dict[str, Any]) -> NDArray[np.bool_] | None:
        if not self.with_masks:
            return None
        value = self.lists.value(place)[0]
        drawn = value.get("segmentation")
        if not drawn:
            return None
        what = f"annotation {shown(str(value.get('id')))}"
        height, width = (self._whole(picture, each, what) for each in ("height", "width"))
        try:
            if isinstance(drawn, dict):
                return run_length_mask(drawn.get("counts"), drawn.get("size"), height, width)
            return polygon_mask(drawn, height, width)
        except (ValueError, TypeError) as error:
            raise self._error(what, f"segmentation: {error}") from error

    def _number(self, value: Any, name: str, what: str) -> Any:
        if not is_number(value):
            raise self._error(what, f"expected a number as {name}", value)
        return value

    def _whole(self, value: dict[str, Any], name: str, what: str) -> int:
        found = value.get(name)
        # The table holds numbers of 53 bits.
        if type(found) is not int or abs(found) >= 2**53:
            raise self._error(what, f"expected a whole number as {name}", found)
        return found

    def _error(self, what: str, expected: str, got: Any = None) -> UsageError:
        tail = "" if got is None else f", got {shown(repr(got))}"
        return UsageError(f"{shown(self.address)}, {what}: {expected}{tail}")


def _parts(name: str) -> list[str]:
    return [each for each in name.split("/") if each not in ("", ".")]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _stem(name: str) -> str:
    base = _base(name)
    return base.rpartition(".")[0] or base


def _bare(name: str) -> str:
    """Without its ending."""
    return name.removesuffix(_base(name)) + _stem(name)


def _same_end(one: str, other: str) -> bool:
    """Whether the shorter of two names is the end of the longer, whole folders compared."""
    first, second = _parts(one), _parts(other)
    common = min(len(first), len(second))
    return first[-common:] == second[-common:]


def _grouped(names: Iterable[str]) -> dict[str, list[int]]:
    """The places of each name."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return found
