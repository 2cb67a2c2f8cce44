"""The contact sheet: a first look at a job, drawn from what it has committed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import torch
from PIL import Image

from archives.errors import DeniedObjectError, MissingObjectError
from archives.stores.store import Store
from handlers.images import PictureError, decode_picture
from handlers.render import contact_sheet, encode_jpeg, overlay_all
from handlers.schema import Explanation
from jobs.inputs.plan import Plan
from jobs.names import CONTACT_SHEET
from jobs.saved_run import saved_pictures

PICTURES = 12
COLUMNS = 4
CELL = 320  # pixels


def write_contact_sheet(source: Store, output: Store, plan: Plan) -> bool:
    """Draws the first pictures that have detections; False, and no sheet, if there are none.

    Of several layers the first is drawn.

    From tables, heatmaps and pictures read back, so that it is the same after a resumed run. A
    picture that has gone since is left out.
    """
    images: list[Image.Image] = []
    explained = _explained(output, plan)
    with ThreadPoolExecutor(PICTURES) as pool:
        while len(images) < PICTURES and (some := [*islice(explained, PICTURES - len(images))]):
            pictures = pool.map(partial(_decoded, source), [key for key, _ in some])
            images += [
                overlay_all(picture, explanations, longest=CELL)
                for picture, (_, explanations) in zip(pictures, some, strict=True)
                if picture is not None
            ]
    if not images:
        return False
    sheet = contact_sheet(images, min(COLUMNS, len(images)), CELL)
    output.write(CONTACT_SHEET, encode_jpeg(sheet))
    return True


def _decoded(source: Store, key: str) -> torch.Tensor | None:
    try:
        return decode_picture(source.read(key))
    except (MissingObjectError, DeniedObjectError, PictureError):
        return None  # it was there when it was explained


def _explained(output: Store, plan: Plan) -> Iterator[tuple[str, list[Explanation]]]:
    for each in saved_pictures(output, plan):
        if each.rows:
            first = each.rows[0]["layer"]
            yield each.key, [each.explanation(row) for row in each.rows if row["layer"] == first]
