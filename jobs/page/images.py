"""Pictures that parts of an audit drew, copied so that the report's folder needs no other."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import PIL.Image

from archives.errors import DeniedObjectError, MissingObjectError
from archives.stores.store import Store
from jobs.audit.findings import Image, Part
from jobs.notes import say

FOLDER = "images/"
# OSError and ValueError are Pillow's, of a broken image: a store's own are among the first two.
UNREADABLE = (
    *(MissingObjectError, DeniedObjectError),
    *(PIL.Image.DecompressionBombError, OSError, ValueError),
)


@dataclass(frozen=True)
class ShownImage:
    """name: below the report's folder. width, height: in pixels."""

    name: str
    width: int
    height: int
    image: Image


def copied_images(
    part: Part, output: Store, write: Callable[[str, bytes], None]
) -> Iterator[ShownImage]:
    """Copies a part's images; those that are not there any more, cannot be read, or are no
    pictures, are left out, which a line on stderr says.

    output: where they lie. write: takes a name below the report's folder, and what is to be there.
    """
    for number, each in enumerate(part.images):
        try:
            data = output.read(each.path)
            with PIL.Image.open(io.BytesIO(data)) as image:  # its head alone
                width, height = image.size
        except UNREADABLE as error:
            say(f"the report shows no {each.path}: {error}")
            continue
        name = f"{FOLDER}{part.name}-{number}.jpg"
        write(name, data)
        yield ShownImage(name, width, height, each)
