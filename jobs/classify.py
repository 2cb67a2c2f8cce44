"""A classifier's six pictures of each picture: Grad-CAM and Grad-CAM++, each alone and over the
picture, guided backpropagation and Guided Grad-CAM."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from archives.errors import UsageError, shortened
from archives.errors import printable as printable_text
from archives.stores.opening import open_store
from archives.stores.store import Store
from handlers.detectors.classifier import ClassifierDetector
from handlers.grid import Block, draw_grid
from handlers.guided import guided_backpropagation, guided_gradcam, rectifiers
from handlers.images import Geometry, to_image
from handlers.render import LONGEST, blend, caption, overlay, resized
from handlers.schema import EMITTING, ExplainRequest, Explanation, RequestError
from jobs.errors import DONE, DONE_WITH_FAILURES
from jobs.inputs.listing import list_input
from jobs.names import file_name, printable
from jobs.notes import say
from jobs.options import ClassifyOptions
from jobs.progress import counted
from jobs.worker.pictures import Failure, Pools, load_ahead
from jobs.worker.shard import check_whose

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from handlers.explainer import Explainer

METHODS = ("gradcam", "gradcam++")
# Names of what is drawn, in the order of the sheet, and their headings there.
SIX = {
    "gradcam-heatmap": "Grad-CAM",
    "gradcam-overlay": "Grad-CAM, overlay",
    "gradcam++-heatmap": "Grad-CAM++",
    "gradcam++-overlay": "Grad-CAM++, overlay",
    "guided-backpropagation": "guided backpropagation",
    "guided-gradcam": "Guided Grad-CAM",
}
SHEET = "sheet"
ENDINGS = tuple(f".{name}.png" for name in (*SIX, SHEET))
CELL = 320  # pixels, the longer side of each picture on the sheet
# The share of gradients that are drawn true; the strongest few would leave all others grey.
DRAWN_TRUE = 0.999


@dataclass(frozen=True)
class Six:
    """What is drawn of one picture.

    cams: for each of METHODS the explanation of one class. guided, guided_cam: [3, h, w], signed,
    on the network input, which `frame` places on the picture. rectified: the network has nn.ReLU,
    so that `guided` is not the plain gradient.
    """

    cams: tuple[Explanation, ...]
    guided: Tensor
    guided_cam: Tensor
    frame: Geometry
    rectified: bool


def classify(options: ClassifyOptions, explainer: Explainer) -> int:
    """Draws each picture's six pictures, and a sheet of them, to the output as PNG files; returns
    0, or 3 if some pictures failed.

    What was drawn before is replaced. Raises UsageError for an archive that is no classifier, if
    there are no pictures, or if none could be drawn; RequestError for names that the classifier
    does not know.
    """
    request = _request(options, explainer)
    with list_input(options.inputs, options.output) as listing:
        # All at once: six files are written of each, which nobody asks of millions.
        entries = [entry for entry in listing.entries() if not entry.key.endswith(ENDINGS)]
    if not entries:
        places = shortened(" ".join(options.inputs))
        raise UsageError(f"all pictures in {places} were drawn by this command before")
    output = open_store(options.output)
    failures = []
    pools = Pools.start()
    try:
        for each in load_ahead(listing.store, entries, pools.transfer, 1):
            if isinstance(each, Failure):
                failures.append(each)
                continue
            try:
                found = explain(each.pixels, explainer, request)
            except Exception as error:  # anything a network raises for a picture is that picture's
                check_whose(error)
                failures.append(Failure.of(each.key, "explain", error))
                continue
            _write(output, each.key, each.pixels, found)
    finally:
        pools.shutdown()
    for failure in failures:
        say(f"{failure.key}: {failure.message}")
    if len(failures) == len(entries):
        raise UsageError(f"none of {counted(len(entries), 'picture')} could be drawn")
    return DONE_WITH_FAILURES if failures else DONE


def _request(options: ClassifyOptions, explainer: Explainer) -> ExplainRequest:
    if not isinstance(explainer.detector, ClassifierDetector):
        raise UsageError(
            f"{shortened(options.archive)} is no classifier but a"
            f" {type(explainer.detector.model).__name__}; explain its boxes with"
            " `python -m jobs explain`"
        )
    request = ExplainRequest(
        method=METHODS[0],
        layer=options.layer or explainer.defaults.layer,
        category=options.category,
        score_threshold=0.0,
        max_detections=1,
    )
    if len(request.layers) > 1:
        raise RequestError("layer", request.layer, "one name; `python -m jobs sweep` draws several")
    explainer.check(request)
    return request


def explain(picture: Tensor, explainer: Explainer, request: ExplainRequest) -> Six:
    """The maps and gradients of a picture (uint8 [3, H, W]) for the class that `request` names, or
    the best. Raises PictureError, and NonFiniteError."""
    found = [
        explainer.explain([picture], replace(request, method=method))[0][0] for method in METHODS
    ]
    model, label = explainer.detector.model, found[0].label
    with torch.no_grad():
        inputs = explainer.detector.prepare(picture)

    def logit(tensors: Tensor) -> Tensor:
        logits: Tensor = model(tensors)
        return logits[0, [label]]

    guided = guided_backpropagation(model, logit, inputs.tensors)[0].cpu()
    frame = inputs.geometries[0]
    return Six(
        cams=tuple(found),
        guided=guided,
        guided_cam=guided_gradcam(guided, found[0].heatmap, found[0].geometry, frame),
        frame=frame,
        rectified=bool(rectifiers(model)),
    )


def draw(picture: Tensor, six: Six, longest: int, labels: bool) -> list[Image.Image]:
    """The six pictures in the order of SIX, the longer side `longest` pixels; labels: with the
    class and its score on the overlays.

    picture: uint8 [3, H, W]. Heat is relative to each map's maximum. Of the gradients grey is zero,
    and so is what the network did not see; the strongest thousandth is cut off.
    """
    small, cams = resized(picture, six.cams, longest)
    images = []
    for each in cams:
        images.append(blend(None, each.normalised(), 1.0))
        images.append(overlay(small, each, longest, labels))
    frame = six.frame.resized(small.shape[2], small.shape[1])
    return images + [_in_colour(each, frame) for each in (six.guided, six.guided_cam)]


def sheet(name: str, picture: Tensor, six: Six) -> Image.Image:
    """The six beside each other, under the class, its score, the picture's name and the layer."""
    first = six.cams[0]
    layer = first.level if first.layer == EMITTING else first.layer
    rank = f" (rank {first.index + 1})" if first.index else ""
    headings = dict(SIX)
    if not six.rectified:
        headings["guided-backpropagation"] = "plain gradient, since this network has no nn.ReLU"
        headings["guided-gradcam"] = "plain gradient times Grad-CAM"
    return draw_grid(
        [
            Block(
                title=f"{caption(first)}{rank}: {shortened(name)}, layer {layer}",
                columns=[*headings.values()],
                rows=[""],
                cells=[draw(picture, six, CELL, labels=False)],
            )
        ]
    )


def _in_colour(gradient: Tensor, frame: Geometry) -> Image.Image:
    """A signed gradient [3, h, w] on the picture's pixels, each channel a colour."""
    strength = gradient.abs().flatten().sort().values
    largest = float(strength[int(DRAWN_TRUE * (len(strength) - 1))]) or float(strength[-1]) or 1.0
    values = torch.stack([frame.to_picture(channel) for channel in gradient / largest])
    return to_image(((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))


def _write(output: Store, key: str, picture: Tensor, six: Six) -> None:
    """Writes the seven files, and prints their names."""
    # Large enough to show every pixel of the network input.
    scale = max(1.0, abs(six.frame.scale_x), abs(six.frame.scale_y))
    longest = min(LONGEST, round(scale * max(picture.shape[1:])))
    images = [*draw(picture, six, longest, labels=True), sheet(printable(key), picture, six)]
    print(printable_text(f"{key}: {caption(six.cams[0])}"))
    for ending, image in zip(ENDINGS, images, strict=True):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        path = file_name(key) + ending
        output.write(path, buffer.getvalue())
        print(f"  {output.uri}/{path}")
