"""Targets by name. A target makes scalars of a detector's outputs, and those are differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.fields import RequestError
from handlers.registry import Registry


class Outputs:
    """What a detector says of N detections, by name; every tensor is [N, ...] and differentiable.

    labels: int64 [N], what each is explained as. As far as the detector has them:
    logits: [N, K]. scores: [N], 0 ... 1, as reported. boxes: [N, 4], x1, y1, x2, y2, clipped at
        the picture's border, in pixels of the network input (of the picture for a callable target).
    objectness, centerness: [N], logits. mask_logits: [N, m, m], of the label's mask.
    keypoint_logits: [N, P, s, s], one heatmap for each keypoint.
    chosen: int64, the places of the detections that the request is about (joint targets only).
    """

    def __init__(self, **tensors: Tensor) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise RequestError("target's output", name, ", ".join(self._tensors))
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def names(self) -> list[str]:
        """Names of the tensors that are here."""
        return list(self._tensors)

    def rows(self, places: Tensor) -> Outputs:
        """The detections at int64 `places`, in that order."""
        return Outputs(**{name: tensor[places] for name, tensor in self._tensors.items()})

    def with_(self, **tensors: Tensor) -> Outputs:
        """The same with these tensors besides, or instead."""
        return Outputs(**{**self._tensors, **tensors})

    @staticmethod
    def cat(several: Sequence[Outputs]) -> Outputs:
        """The rows of several with the same names, one after the other."""
        return Outputs(
            **{name: torch.cat([each[name] for each in several]) for name in several[0].names()}
        )

    def close_to(self, other: Outputs) -> bool:
        """What both have is the same, but for a thousandth of how far its values lie apart, and
        rounding."""
        return all(
            torch.allclose(self[name], other[name], rtol=0, atol=_tolerance(other[name]))
            for name in self.names()
            if name in other and self[name].is_floating_point()
        )

    def own(self, name: str) -> Tensor:
        """Of [N, K] what belongs to each detection's label: [N]."""
        return self[name].gather(1, self["labels"][:, None])[:, 0]


def _tolerance(values: Tensor) -> float:
    finite = values[values.isfinite()]
    if not finite.numel():
        return 0.0
    least, most = (float(each) for each in finite.aminmax())
    # Logits may be one large bias and, beside it, little of what is explained. A single value has
    # no spread.
    return max(1e-3 * (most - least), 1e-5 * max(most, -least, 1.0))


@dataclass(frozen=True)
class Target:
    """needs: names of the outputs that it reads, all of one part of the detector.

    scalars: from outputs to scalars [N]; where there are several the explanation is the elementwise
        maximum of their maps. The second argument is what the request gave after the target's name
        and a colon, "" for nothing; `arguments` lists what is allowed there.
    joint: the scalars are of the picture: 0-dimensional or of one element, from the outputs of all
        that was reported (or of the candidates that a request is about), boxes in picture pixels.
    """

    needs: tuple[str, ...]
    scalars: Callable[[Outputs, str], list[Tensor]]
    arguments: tuple[str, ...] = ()
    joint: bool = False


# Scalars of a callable target: 0-dimensional (one map for the picture) or [N] (one for each box).
CallableTarget = Callable[[Outputs], Tensor]

TARGETS: Registry[Target] = Registry("target", "handlers.targets")


def targets_for(outputs: Sequence[str]) -> list[str]:
    """Names of the targets that can be made of one part's outputs."""
    return [name for name in TARGETS.names() if set(_target(name).needs) <= set(outputs)]


def find_target(name: str) -> tuple[Target, str] | None:
    """The target that a request names, and the argument after the colon; None if there is none."""
    base, _, argument = name.partition(":")
    target = TARGETS.get(base)
    if target is None or (argument and argument not in target.arguments):
        return None
    return target, argument


def _target(name: str) -> Target:
    target = TARGETS.get(name)
    assert target is not None  # the name comes from the registry
    return target
