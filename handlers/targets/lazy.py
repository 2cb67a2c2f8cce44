"""Outputs that are computed when a target reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from handlers.targets.registry import Outputs


class LazyOutputs(Outputs):
    """Outputs of which some are computed at the first reading, and kept.

    makers: by name what computes one. The tensors are there from the start.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]], **tensors: Tensor) -> None:
        super().__init__(**tensors)
        self._makers = makers

    def __getitem__(self, name: str) -> Tensor:
        if name in self._makers and name not in self._tensors:
            self._tensors[name] = self._makers[name]()
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def names(self) -> list[str]:
        """Names of what is here and of what can be computed."""
        return list(dict.fromkeys([*self._tensors, *self._makers]))

    def rows(self, places: Tensor) -> Outputs:
        """The detections at int64 `places`, in that order; computes everything."""
        return self.whole().rows(places)

    def with_(self, **tensors: Tensor) -> Outputs:
        """The same with these tensors besides, or instead; computes everything."""
        return self.whole().with_(**tensors)

    def whole(self) -> Outputs:
        """Everything, computed."""
        return Outputs(**{name: self[name] for name in self.names()})
