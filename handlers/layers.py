"""The layers of a detector by name: which there are, and which can be explained."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handlers.detectors.base import Candidates, Detector, Entries, Found, Inputs, RoIs
from handlers.schema import EMITTING, RequestError
from handlers.tap import undisturbed
from handlers.targets.registry import TARGETS, targets_for

ROI = "roi"
PYRAMID = "pyramid"
# What methods without a layer say theirs is: the pixels of the network input.
INPUT = "input"
BACKBONE = "backbone"
# The backbone's stages by the names of Lin et al. 2017 (FPN), and their strides.
STAGES = {"C2": 4, "C3": 8, "C4": 16, "C5": 32}


@dataclass(frozen=True)
class LayerInfo:
    """One module of a detector.

    name: as in `named_modules()`. kind: its class. shape: what it gave last, None if that is no
    tensor or it did not run. part: "backbone", or the part of the detector that it runs in, None
    for neither. targets: those that depend on it; of the backbone's modules all.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    part: str | None
    targets: frozenset[str] = frozenset()

    @property
    def explained(self) -> bool:
        """It can be the layer of a request for some target."""
        return len(self.shape or ()) == 4 and bool(self.targets)

    def explains(self, target: str) -> bool:
        """It can be the layer of a request for `target`: it gives a map [B, C, h, w] on the way."""
        return self.explained and target.partition(":")[0] in self.targets


@dataclass
class _Watch:
    """Hooks that note what every module gives."""

    gave: dict[str, Tensor | None]

    def on(self, model: nn.Module, stack: ExitStack) -> None:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # these run no hooks
            handle = module.register_forward_hook(self._hook(name))
            stack.callback(handle.remove)

    def _hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, arguments: object, output: object) -> None:
            self.gave[name] = output if isinstance(output, Tensor) else None

        return hook

    def take(self) -> dict[str, Tensor | None]:
        """What was given since the last time."""
        taken, self.gave = self.gave, {}
        return taken


def survey(detector: Detector, inputs: Inputs) -> list[LayerInfo]:
    """All modules in their order, after running the detector on one picture's inputs (B = 1)."""
    every = {name for kind in detector.parts().values() for name in targets_for(kind.outputs)}
    watch = _Watch({})
    found: dict[str, tuple[tuple[int, ...] | None, str | None, set[str]]] = {}
    with undisturbed(detector.model), ExitStack() as stack:
        watch.on(detector.model, stack)
        with torch.no_grad():
            features = detector.features(inputs)
            for name, gave in watch.take().items():
                found[name] = (_shape(gave), BACKBONE, every)
            backbone = set(found)
            candidates = detector.propose(features)
            if not len(candidates[0].boxes):  # a blank picture may give none
                first = torch.zeros(1, dtype=torch.int64, device=inputs.tensors.device)
                box = inputs.tensors.new_tensor([[0.0, 0.0, 64.0, 64.0]])
                candidates = [Candidates(box, first, first, first)]
            raw = detector.score(features, candidates)
            kept = detector.select(features, candidates, raw)
            for name, gave in watch.take().items():
                found.setdefault(name, (_shape(gave), None, set()))
        whole = Found(features, candidates[0], raw[0], kept[0])
        for part, kind in detector.parts().items():
            names = targets_for(kind.outputs)
            with torch.enable_grad():
                scalars = _scalars(detector, whole, part, names)
            gave_by = {
                name: gave
                for name, gave in watch.take().items()
                # Of the backbone something may run again, on nothing that is explained.
                if gave is not None and (gave.requires_grad or name not in backbone)
            }
            for name, gave in gave_by.items():
                found[name] = (_shape(gave), part, set())
            for target, scalar in scalars.items():
                for name in _depends(scalar, gave_by):
                    found[name][2].add(target)
    return [
        LayerInfo(name, type(module).__name__, shape, part, frozenset(targets))
        for name, module in detector.model.named_modules()
        if name
        for shape, part, targets in [found.get(name, (None, None, set()))]
    ]


def _shape(gave: Tensor | None) -> tuple[int, ...] | None:
    return None if gave is None else tuple(gave.shape)


def _scalars(
    detector: Detector, found: Found, part: str, targets: Sequence[str]
) -> dict[str, Tensor]:
    """The sum of each target's scalars for one candidate of every feature map."""
    levels, raw = found.candidates.level, found.raw
    chosen = [torch.where(levels == level)[0][:1] for level in range(len(found.maps))]
    candidate = torch.cat(chosen)
    label = torch.full_like(candidate, detector.first_label)
    scores, boxes = raw.scores[candidate, label], raw.boxes_of(candidate, label)
    entries = Entries(boxes, label, scores, candidate)
    own = detector.part(part, found, entries)
    if isinstance(own, RoIs):
        outputs = own.head(own.pooled.detach().requires_grad_())
    else:
        outputs = own.outputs([each.detach().requires_grad_() for each in found.maps])
    outputs = outputs.with_(chosen=torch.arange(len(candidate)))
    sums = {}
    for name in targets:
        target = TARGETS.get(name)
        assert target is not None  # the names come from the registry
        sums[name] = torch.stack([each.sum() for each in target.scalars(outputs, "")]).sum()
    return sums


def _depends(scalar: Tensor, gave: Mapping[str, Tensor]) -> list[str]:
    """Names of what `scalar` depends on."""
    inner = {name: each for name, each in gave.items() if each.requires_grad}
    if not scalar.requires_grad or not inner:
        return []
    gradients = torch.autograd.grad(scalar, [*inner.values()], retain_graph=True, allow_unused=True)
    return [name for name, each in zip(inner, gradients, strict=True) if each is not None]


def find_layer(
    detector: Detector, layers: Sequence[LayerInfo], name: str, target: str | None
) -> LayerInfo:
    """The module of that name; raises RequestError, with near names, unless it can be explained
    for `target`, or with None for any."""
    usable = {
        each.name: each
        for each in layers
        if (each.explained if target is None else each.explains(target))
    }
    if name in usable:
        return usable[name]
    known = next((each for each in layers if each.name == name), None)
    why = name
    if known is not None and len(known.shape or ()) == 4:
        why = f"{name}, which has no part in the target {target}"
    elif known is not None:
        why = f"{name}, which gives {list(known.shape) if known.shape else 'no single map'}"
    raise RequestError(
        "layer", why, ", ".join([*layer_names(detector), *near(name, usable), "..."])
    )


def find_stage(layers: Sequence[LayerInfo], name: str, side: int) -> str:
    """The name of the module that gives a stage (one of STAGES): the last of a row of modules of
    its stride, before the first of another. layers: of a network input that is `side` wide.

    Raises RequestError if the backbone has no such stage.
    """
    # Rounded, since 300 pixels make maps of 38, 19 and 10 cells.
    strides = {
        each.name: 2 ** round(math.log2(side / each.shape[3]))
        for each in layers
        if each.part == BACKBONE and each.shape is not None and len(each.shape) == 4
    }
    children: dict[str, list[str]] = {}
    for each in layers:
        children.setdefault(each.name.rpartition(".")[0], []).append(each.name)

    def inside(parent: str, found: str | None) -> tuple[str | None, bool]:
        """The last module of the row that goes on in there, and whether it ends there."""
        for child in children.get(parent, []):
            stride = strides.get(child)
            if stride == STAGES[name]:
                found = child
            elif stride is None:  # a container; a row may go on in one, not behind it
                inner, ended = inside(child, found)
                if ended or inner != found:
                    return inner, True
            elif found is not None:
                return found, True
            elif stride > STAGES[name]:
                return inside(child, None)[0], True
        return found, False

    module, _ = inside("", None)
    if module is None:
        raise RequestError(
            "layer", name, f"a module's name: the backbone has no stride {STAGES[name]}"
        )
    return module


def near(name: str, names: Iterable[str]) -> list[str]:
    """Some of `names` that may have been meant: children, misspellings, what lies beside it."""
    names = list(names)
    children = [each for each in names if each.startswith(name + ".")]
    alike = difflib.get_close_matches(name, names, n=4, cutoff=0.6)
    beside: list[str] = []
    while "." in name and not beside:
        name = name.rpartition(".")[0]
        beside = [each for each in names if each.startswith(name + ".")]
    return list(dict.fromkeys([*children, *alike, *beside]))[:4]


def layer_names(detector: Detector) -> list[str]:
    """The layers that are no modules, or modules by another name."""
    pooled = any(kind.pooled for kind in detector.parts().values())
    return [EMITTING, *([ROI] if pooled else []), PYRAMID, *STAGES]


def preview(layers: Sequence[LayerInfo], target: str) -> str:
    """The module tree as text: name, class, output shape; a star marks what can be explained."""
    lines = []
    for each in layers:
        star = "*" if each.explains(target) else " "
        name = "  " * each.name.count(".") + each.name.rpartition(".")[2]
        shape = " x ".join(map(str, each.shape)) if each.shape else ""
        lines.append(f"{star} {name:<38} {each.kind:<28} {shape}".rstrip())
    return "\n".join(lines)
