"""Which of a detector's weights are its class head's, its box head's, its backbone's: told by what
they change, so of any detector with the four verbs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handlers.detectors.base import Candidates, Detector, Features, Inputs
from handlers.normalisation import exact_normalisation
from handlers.tap import undisturbed

# A gradient that is so little of the largest is none.
ROUNDING = 1e-6
CLASS_HEAD, BOX_HEAD, BACKBONE = PARTS = ("class head", "box head", "backbone")


@dataclass(frozen=True)
class Weights:
    """Entries of one parameter.

    name: as in `named_parameters()`. rows: int64, the places along its first dimension that are
    meant; None for all.
    """

    name: str
    parameter: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        whole = self.parameter.numel()
        return whole if self.rows is None else whole // len(self.parameter) * len(self.rows)


def weights_by_part(detector: Detector, inputs: Inputs) -> dict[str, list[Weights]]:
    """The weights of each of PARTS, perhaps none.

    The backbone's lead to the feature maps. Of those that lead from the maps to the head's outputs
    the class head's lead to logits and to no box, the box head's to boxes and to no logit; what
    leads to both, as the hidden layers of Faster R-CNN's head do, is neither's. Where one layer
    gives both, as YOLO's last convolutions do, its rows are told apart. A proposal network belongs
    to none: what it proposes is not differentiated. Nor do objectness and centerness.

    inputs: one picture's (B = 1), best of a real one, since where nothing is active nothing has a
    gradient.
    """
    model = detector.model
    with undisturbed(model), exact_normalisation(model), _with_gradients(model) as parameters:
        names, own = list(parameters), list(parameters.values())
        with torch.enable_grad():
            features = detector.features(inputs)
        backbone = [each is not None for each in _gradients([*features.maps.values()], own)]
        # The head alone: what it gives leads no further back than to the maps.
        maps = {name: each.detach() for name, each in features.maps.items()}
        features = Features(features.inputs, maps)
        with torch.no_grad():
            candidates = detector.propose(features)
        if not len(candidates[0].boxes):
            candidates = [_one_candidate(inputs)]
        with torch.enable_grad():
            (raw,) = detector.score(features, candidates)
        found: dict[str, list[Weights]] = {part: [] for part in PARTS}
        to_logits, to_boxes = _gradients([raw.logits], own), _gradients([raw.boxes], own)
    least = (_least(to_logits), _least(to_boxes))
    for name, parameter, early, logits, boxes in zip(
        names, own, backbone, to_logits, to_boxes, strict=True
    ):
        if early:
            found[BACKBONE].append(Weights(name, parameter))
            continue
        for part, rows in _heads(logits, boxes, least):
            found[part].append(Weights(name, parameter, rows))
    return found


def _heads(
    logits: Tensor | None, boxes: Tensor | None, least: tuple[float, float]
) -> Iterator[tuple[str, Tensor | None]]:
    """Whose a parameter is, by its gradients, and which of its rows; None for all."""
    if logits is None or boxes is None:
        if logits is not boxes:
            yield BOX_HEAD if logits is None else CLASS_HEAD, None
        return
    if not logits.dim():
        return
    classes, edges = (
        each.abs().reshape(len(each), -1).amax(1) > enough
        for each, enough in zip((logits, boxes), least, strict=True)
    )
    if bool((classes & edges).any()):  # a layer that both share
        return
    for part, own in ((CLASS_HEAD, classes), (BOX_HEAD, edges)):
        if bool(own.any()):
            yield part, torch.where(own)[0]


@contextmanager
def shuffled(weights: Sequence[Weights], seed: int) -> Iterator[None]:
    """While open, each of the weights' values are in a random order: as they are spread, and
    without anything that was learned. Afterwards, also after an error, they are what they were.

    seed: the same gives the same order.
    """
    generator = torch.Generator().manual_seed(seed)
    before = [each.parameter.detach().clone() for each in weights]
    try:
        for each in weights:
            _shuffle(each, generator)
        yield
    finally:
        with torch.no_grad():
            for each, values in zip(weights, before, strict=True):
                each.parameter.copy_(values)


@torch.no_grad()
def _shuffle(weights: Weights, generator: torch.Generator) -> None:
    parameter = weights.parameter
    rows = torch.arange(len(parameter)) if weights.rows is None else weights.rows
    values = parameter[rows] if parameter.dim() else parameter.reshape(1)
    order = torch.randperm(values.numel(), generator=generator).to(values.device)
    values = values.flatten()[order].reshape(values.shape)
    if parameter.dim():
        parameter[rows] = values


@contextmanager
def _with_gradients(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """The model's parameters, by name, which ask for gradients while this is open."""
    parameters = {name: each for name, each in model.named_parameters() if each.is_floating_point()}
    before = {name: each.requires_grad for name, each in parameters.items()}
    try:
        for each in parameters.values():
            each.requires_grad_(True)
        yield parameters
    finally:
        for name, each in parameters.items():
            each.requires_grad_(before[name])


def _gradients(outputs: Sequence[Tensor], own: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Of the outputs, weighed at random so that nothing cancels out; None where nothing leads from
    a parameter to any of them."""
    outputs = [each for each in outputs if each.requires_grad]
    if not outputs:
        return [None] * len(own)
    generator = torch.Generator().manual_seed(0)
    weighed = [torch.randn(each.shape, generator=generator).to(each) for each in outputs]
    return torch.autograd.grad(outputs, own, weighed, retain_graph=True, allow_unused=True)


def _least(gradients: Sequence[Tensor | None]) -> float:
    """What is more than rounding, as which the gradient of an attention's bias comes out."""
    largest = [float(each.abs().max()) for each in gradients if each is not None]
    return ROUNDING * max(largest, default=0.0)


def _one_candidate(inputs: Inputs) -> Candidates:
    first = torch.zeros(1, dtype=torch.int64, device=inputs.tensors.device)
    return Candidates(inputs.tensors.new_tensor([[0.0, 0.0, 64.0, 64.0]]), first, first, first)
