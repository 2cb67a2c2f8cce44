"""Where pixels and cells of a classifier lie on the picture, and how pictures are prepared."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models import get_model_weights

from handlers.detectors.registry import build_model, detector_for
from tests.conftest import random_picture

PICTURE = random_picture(120, 150, seed=3)


def ramps(height: int, width: int) -> Tensor:
    """A picture whose red is the column and whose green is the row."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.zeros_like(rows)]).to(torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(120, 250), (250, 90), (131, 131), (20, 30)])
@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_pixels_of_the_network_input_are_found_on_the_picture(
    resize: str, height: int, width: int
) -> None:
    model = build_model("alexnet", 2, {"size": 96, "resize": resize})
    detector = detector_for(model)
    inputs = detector.prepare(ramps(height, width))
    geometry = inputs.geometries[0]
    seen = inputs.tensors[0, :2] * torch.tensor([0.229, 0.224])[:, None, None]
    seen = (seen + torch.tensor([0.485, 0.456])[:, None, None]) * 255
    for row, column in ((20, 20), (48, 70), (75, 30)):
        x, y = geometry.point_of(column + 0.5, row + 0.5, 96, 96)
        # Up to the rounding of grey values.
        assert x - 0.5 == pytest.approx(float(seen[0, row, column]), abs=0.75)
        assert y - 0.5 == pytest.approx(float(seen[1, row, column]), abs=0.75)


@pytest.mark.parametrize(
    ("architecture", "layer", "size"),
    [
        ("alexnet", "features.11", 300),
        ("googlenet", "inception4b", 401),
        ("inception_v3", "Mixed_5c", 299),
        ("mobilenet_v2", "features.10", 256),
        ("resnet18", "layer3", 300),
        ("squeezenet1_0", "classifier.2", 400),
        ("vgg11", "features.19", 224),
    ],
)
def test_a_cell_lies_in_the_middle_of_what_it_sees(
    architecture: str, layer: str, size: int
) -> None:
    detector = detector_for(build_model(architecture, 2, {"size": size}))
    # With equal weights throughout, a cell's gradient is symmetric about what the cell sees.
    for name, module in list(detector.model.named_modules()):
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data.fill_(1 / module.weight[0].numel())
        if isinstance(module, torch.nn.MaxPool2d):  # of equals it takes one
            how = (module.kernel_size, module.stride, module.padding, module.ceil_mode)
            detector.model.set_submodule(name, torch.nn.AvgPool2d(*how))
    caught: list[Tensor] = []
    module = detector.model.get_submodule(layer)
    module.register_forward_hook(lambda _, __, output: caught.append(output))
    inputs = torch.full((1, 3, size, size), 0.01, requires_grad=True)
    detector.model(inputs)
    height, width = caught[0].shape[-2:]
    row, column = height // 2, width // 2 - 1
    (gradient,) = torch.autograd.grad(caught[0][0, :, row, column].sum(), inputs)
    seen = gradient[0].sum(0).double()
    across, down = seen.sum(0), seen.sum(1)
    pixels = torch.arange(size) + 0.5
    expected = ((across * pixels).sum() / across.sum(), (down * pixels).sum() / down.sum())
    geometry = detector.on_grid(detector.sample().geometries[0], height, width)
    found = geometry.point_of(column + 0.5, row + 0.5, height, width)
    assert found == pytest.approx([float(each) for each in expected], abs=0.3)


@pytest.mark.parametrize(
    ("architecture", "preset"),
    [
        ("mobilenet_v2", "IMAGENET1K_V1"),
        ("mobilenet_v2", "IMAGENET1K_V2"),
        ("efficientnet_b0", "IMAGENET1K_V1"),
        ("inception_v3", "IMAGENET1K_V1"),
    ],
)
def test_pictures_are_prepared_as_torchvision_does_for_weights(
    architecture: str, preset: str
) -> None:
    model = build_model(architecture, 3, {"preset": preset})
    found = detector_for(model).prepare(PICTURE)
    expected = get_model_weights(architecture)[preset].transforms()(PICTURE)
    torch.testing.assert_close(found.tensors[0], expected, atol=0, rtol=0)
    # As torchvision's own builder sets it with these weights.
    assert getattr(model, "transform_input", True) is True
