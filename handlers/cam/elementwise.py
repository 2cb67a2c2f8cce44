"""Methods that weigh every cell by its own gradient: they tell instances of a category apart."""

from __future__ import annotations

from torch import Tensor

from handlers.cam.gradient import MapGradient
from handlers.cam.registry import METHODS


@METHODS.register("odam")
@METHODS.register("hirescam")
def hirescam(gradient: MapGradient) -> Tensor:
    """HiResCAM (Draelos and Carin 2020): sum_k g_k A_k, cell by cell.

    Taken at the pyramid level that emitted the box and cut at zero it is ODAM (Zhao and Chan, ICLR
    2023), whose optional Gaussian smoothing is the request's `smooth`. Its authors differentiate
    the reported probability; here the target is the request's, by itself the logit, which does not
    saturate: `target="probability"` is theirs.
    """
    return gradient.product()


@METHODS.register("layercam")
def layercam(gradient: MapGradient) -> Tensor:
    """LayerCAM (Jiang et al. 2021): sum_k ReLU(g_k) A_k.

    Where the paper fuses several layers it first scales the maps of shallow ones by
    tanh(2 M / max M). A map of one layer is not scaled, and `fuse` takes the mean of such maps.
    """
    return gradient.elementwise(lambda activation, g: (activation * g.relu()).sum(1))
