"""Feature maps: what a detector's layers give for a picture, and their channels reduced to what can
be shown.

    explainer = Explainer.from_archive("model_store/demo.mar")
    view = feature_maps(explainer, picture, ["pyramid", "backbone.body.block3"])
    for each in view.maps:                                # layer, name, activation [C, h, w]
        for reduced in Reduction("none", topk=4)(each.activation):
            heat = on_pixels(reduced.values, each.geometry)   # [H, W], the layer's own values
            shown = normalised(heat)                          # 0 ... 1

The reductions are those of MMEngine's `Visualizer.draw_featmap`; two things differ. Channels are
compared on the map's own grid, not on one upsampled to the picture, and among equals the first
channel wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from handlers.detectors.base import Found, Inputs, to_detections
from handlers.explainer import Explainer
from handlers.images import Geometry
from handlers.layers import BACKBONE, PYRAMID, near
from handlers.network import check_finite
from handlers.precision import exact_float32
from handlers.schema import Detections, RequestError
from handlers.tap import NonFiniteError, all_finite, undisturbed

SQUEEZE_MEAN, SELECT_MAX, NONE = "squeeze_mean", "select_max", "none"
REDUCTIONS = (SQUEEZE_MEAN, SELECT_MAX, NONE)
ALL = -1


@dataclass(frozen=True)
class Reduced:
    """What of a map is shown as one picture.

    channels: those it was made of. values: float32 [h, w]; or [3, h, w], three channels that are
    shown as red, green and blue.
    """

    channels: tuple[int, ...]
    values: Tensor = field(repr=False)


@dataclass(frozen=True)
class Reduction:
    """How the channels of a map become few enough to look at; call it with a map.

    channel_reduction: "squeeze_mean" (the mean of all channels), "select_max" (the channel whose
        sum over the map is highest) or "none".
    topk: with "none", so many channels, those of the highest sums, best first (all, if there are
        fewer); -1 for all as they are, for maps of one channel or of three, which are shown as red,
        green and blue.
    arrangement: with "none" and a topk, the rows and columns that the channels are shown in.

    Raises RequestError for other values, and for an arrangement with fewer places than topk.
    """

    channel_reduction: str = SQUEEZE_MEAN
    topk: int = 4
    arrangement: tuple[int, int] = (2, 2)

    def __post_init__(self) -> None:
        if self.channel_reduction not in REDUCTIONS:
            raise RequestError("channel_reduction", self.channel_reduction, ", ".join(REDUCTIONS))
        if self.topk < 1 and self.topk != ALL:
            raise RequestError("topk", self.topk, "a number of channels, or -1 for all")
        rows, columns = self.arrangement
        if rows < 1 or columns < 1:
            raise RequestError("arrangement", self.arrangement, "rows and columns, at least 1 each")
        if self.channel_reduction == NONE and rows * columns < self.topk:
            raise RequestError(
                "arrangement",
                f"{rows} x {columns}, which has {rows * columns} places",
                f"rows and columns with a place for each of the {self.topk} channels of topk",
            )

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of small pictures that one map is shown in."""
        one = self.channel_reduction != NONE or self.topk == ALL
        return (1, 1) if one else self.arrangement

    def __call__(self, activation: Tensor) -> list[Reduced]:
        """What is shown of a map [C, h, w].

        Raises RequestError if topk is -1 and there are neither one nor three channels.
        """
        number = len(activation)
        if self.channel_reduction == SQUEEZE_MEAN:
            return [Reduced(tuple(range(number)), activation.mean(0))]
        if self.channel_reduction == NONE and self.topk == ALL:
            if number not in (1, 3):
                raise RequestError(
                    "topk",
                    f"-1 for a map of {number} channels",
                    "-1 for maps of 1 or 3 channels; else a number of channels, or another"
                    " channel_reduction",
                )
            values = activation[0] if number == 1 else activation
            return [Reduced(tuple(range(number)), values)]
        # The sum of many float32 may round, and a GPU's differently; this decides an order.
        sums = activation.double().sum((1, 2))
        most = 1 if self.channel_reduction == SELECT_MAX else self.topk
        best = sums.sort(descending=True, stable=True).indices[:most].tolist()
        return [Reduced((channel,), activation[channel]) for channel in best]


@dataclass(frozen=True)
class FeatureMap:
    """One map of a layer.

    layer: as it was asked for. name: which of the layer's maps, "" if it has one: a key or place in
        the module's output, the call where a module ran several times, the name of a level.
    activation: float32 [C, h, w], cells of padding included, on the CPU.
    geometry: places the grid on the picture. input_geometry: places it on the network input.
    """

    layer: str
    name: str
    activation: Tensor = field(repr=False)
    geometry: Geometry = field(repr=False)
    input_geometry: Geometry = field(repr=False)


@dataclass(frozen=True)
class FeatureView:
    """What was seen in a detector while it looked at one picture.

    maps: in the order of the layers that were asked for, of one layer in the order of its output.
    network_input: uint8 [3, h, w], the picture as the network took it: resized, padded, channels in
        its order; 0 ... 255 from the lowest to the highest value of all of it.
    detections: what the detector reported, as `Explainer.detect` gives it.
    """

    maps: tuple[FeatureMap, ...]
    network_input: Tensor = field(repr=False)
    detections: Detections


def on_pixels(values: Tensor, geometry: Geometry) -> Tensor:
    """`Reduced.values` on the pixels of the picture of `geometry`: float32 [H, W] or [3, H, W],
    bilinear; cells of padding are cut off."""
    if values.dim() == 2:
        return geometry.to_picture(values)
    return torch.stack([geometry.to_picture(each) for each in values])


def normalised(values: Tensor) -> Tensor:
    """Values of any shape between their own minimum (0) and maximum (1); all equal: all 0.

    Two maps that look alike may thus differ in strength: compare the values themselves.
    """
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)


@torch.inference_mode(False)
def feature_maps(explainer: Explainer, picture: Tensor, layers: Sequence[str]) -> FeatureView:
    """The maps of `layers` for a picture (uint8 RGB [3, H, W]): one run of the detector.

    layers: "pyramid" for the detector's own feature maps; modules by their names in
    `named_modules()`; a level's name (`detector.level_names()`) where no module has it. Of a module
    all maps [1, C, h, w] are taken, in whatever tuples, lists and dictionaries it gives them, and
    of one that runs several times (a head that levels share) those of each call. They are copied at
    once: an operation in place that follows does not show.

    The detector runs in eval mode, without gradients, and is left as it was found. Raises
    RequestError, with near names, for a layer that there is not or that gives no map of the
    picture; PictureError for a picture the detector cannot take; NonFiniteError for a map with a
    NaN or an infinity.
    """
    check_layers(explainer, layers)
    names = dict.fromkeys(layers)
    modules = {name: _module(explainer, name) for name in names}
    watches: dict[str, _Watch] = {}
    with undisturbed(explainer.detector.model), ExitStack() as stack:
        for name, module in modules.items():
            if module is not None:
                watches[name] = _Watch(module)
                stack.callback(watches[name].stop)
        inputs = explainer.prepare(picture)
        found = _run(explainer, inputs, list(watches.values()))
    level_names = explainer.detector.level_names()
    levels = dict(zip(level_names, found.maps, strict=True))
    taken = []
    for layer in names:
        if layer in watches:
            maps = _of_picture(explainer, layer, watches[layer], found)
        else:
            maps = levels if layer == PYRAMID else {"": levels[layer]}
        taken += [_feature_map(explainer, layer, name, each, found) for name, each in maps.items()]
    return FeatureView(tuple(taken), _viewable(inputs), to_detections(found.kept, level_names))


def check_layers(explainer: Explainer, layers: Sequence[str]) -> None:
    """Raises RequestError, with near names, for a layer that the detector does not have."""
    for layer in layers:
        if layer not in _own(explainer) and _module(explainer, layer) is None:
            raise _refusal(explainer, layer, layer)


def _own(explainer: Explainer) -> list[str]:
    """The layers that are no modules."""
    return [PYRAMID, *explainer.detector.level_names()]


def _module(explainer: Explainer, layer: str) -> nn.Module | None:
    if layer == PYRAMID or not layer:
        return None
    modules = explainer.detector.model.named_modules(remove_duplicate=False)
    return next((module for name, module in modules if name == layer), None)


@torch.no_grad()
def _run(explainer: Explainer, inputs: Inputs, watches: Sequence[_Watch]) -> Found:
    """The four verbs for one picture. Each module is watched in the first of them that it runs in:
    later ones may run it again, on nothing that is of this picture."""

    def done() -> None:
        for watch in watches:
            if watch.ran:
                watch.stop()

    detector = explainer.detector
    try:
        features = explainer.network.features(inputs)
        done()
        with exact_float32():
            candidates = detector.propose(features)
            done()
            raw = detector.score(features, candidates)
            done()
            check_finite(features, raw)
            kept = detector.select(features, candidates, raw)
    except NonFiniteError:
        explainer.network.name_non_finite(inputs)
        raise
    return Found(features, candidates[0], raw[0], kept[0])


class _Watch:
    """Copies what a module gives, call by call, until it is stopped."""

    def __init__(self, module: nn.Module) -> None:
        self.calls: list[dict[str, Tensor]] = []
        self.ran = False
        self.gave = "does not run when the detector looks at a picture"
        self.stop = module.register_forward_hook(self._hook).remove

    def _hook(self, module: nn.Module, arguments: object, output: object) -> None:
        self.ran = True
        tensors = dict(_tensors(output))
        maps = {name: each.detach().clone() for name, each in tensors.items() if each.dim() == 4}
        if maps:
            self.calls.append(maps)
        shapes = ", ".join(str(list(each.shape)) for each in tensors.values())
        self.gave = f"gives {shapes or 'a ' + type(output).__name__}"

    def maps(self) -> dict[str, Tensor]:
        """All maps [B, C, h, w] by name."""
        if len(self.calls) < 2:
            return {name: each for maps in self.calls for name, each in maps.items()}
        return {
            f"call {number}" + (f", {name}" if name else ""): each
            for number, maps in enumerate(self.calls, start=1)
            for name, each in maps.items()
        }


def _tensors(output: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested tuples, lists and dictionaries, by keys and places."""
    if isinstance(output, Tensor):
        yield name, output
        return
    inner: Iterator[tuple[object, object]] = iter(())
    if isinstance(output, Mapping):
        inner = iter(output.items())
    elif isinstance(output, Sequence) and not isinstance(output, (str, bytes)):
        inner = iter(enumerate(output))
    for key, each in inner:
        yield from _tensors(each, f"{name}.{key}" if name else str(key))


def _of_picture(explainer: Explainer, layer: str, watch: _Watch, found: Found) -> dict[str, Tensor]:
    """A layer's maps of the picture, [1, C, h, w] each. Raises RequestError if it gave none."""
    maps = watch.maps()
    if not maps:
        raise _refusal(explainer, layer, f"{layer}, which {watch.gave}")
    own = {name: each for name, each in maps.items() if len(each) == 1}
    boxes = len(found.candidates.boxes)
    if not own or (boxes == 1 and _sees_boxes(explainer, layer)):
        number = max(len(each) for each in maps.values())
        raise _refusal(explainer, layer, f"{layer}, with a map for each of {number} boxes")
    return own


def _sees_boxes(explainer: Explainer, layer: str) -> bool:
    """The module works on what was pooled for each box."""
    parts = explainer.detector.parts()
    if not any(kind.pooled for kind in parts.values()):
        return False
    part = next((each.part for each in explainer.survey() if each.name == layer), None)
    return part != BACKBONE and (part is None or parts[part].pooled)


def _refusal(explainer: Explainer, layer: str, got: str) -> RequestError:
    others = near(layer, _drawable(explainer))
    return RequestError("layer", got, ", ".join([*_own(explainer), *others, "..."]))


@torch.inference_mode(False)
def _drawable(explainer: Explainer) -> list[str]:
    """The modules that give maps of a blank picture."""
    model = explainer.detector.model
    found: dict[str, None] = {}

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def note(module: nn.Module, arguments: object, output: object) -> None:
            maps = [each for _, each in _tensors(output) if each.dim() == 4]
            if maps and all(len(each) == 1 for each in maps):
                found[name] = None

        return note

    with undisturbed(model), ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_hook(hook(name)).remove)
        _run(explainer, explainer.detector.sample(), [])
    return [name for name, _ in model.named_modules() if name in found]


def _feature_map(
    explainer: Explainer, layer: str, name: str, maps: Tensor, found: Found
) -> FeatureMap:
    activation = maps[0].detach().to("cpu", torch.float32)
    if not all_finite([activation]):
        raise NonFiniteError(f"the map of {layer} is not finite (NaN or infinity)")
    height, width = activation.shape[-2:]
    across, down = found.frame.frame_width, found.frame.frame_height
    whole = Geometry(round(across), round(down), across, down, 1.0, 1.0)
    on_grid = explainer.detector.on_grid
    return FeatureMap(
        layer,
        name,
        activation,
        on_grid(found.frame, height, width),
        on_grid(whole, height, width),
    )


def _viewable(inputs: Inputs) -> Tensor:
    """The network input as a picture: one scale for all channels, so that colours stay what they
    are to within the spread of the normalisation."""
    return (normalised(inputs.tensors[0].float()) * 255).round().to("cpu", torch.uint8)
