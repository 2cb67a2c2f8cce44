from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from handlers.detectors.registry import ARCHITECTURES, DetectorError, build_model
from handlers.model_file import load_model_file, network_of

ONE = b"""
from dataclasses import dataclass

from torch import nn


@dataclass
class Sizes:
    width: int = 4


class Net(nn.Module):
    def __init__(self, width: int = Sizes().width):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 1)
"""
TWO = ONE + b"\n\nclass Other(Net):\n    pass\n"


@pytest.mark.parametrize(
    ("source", "name", "arguments", "width"),
    [(ONE, "", {}, 4), (ONE, "Net", {"width": 7}, 7), (TWO, "Other", {"width": 2}, 2)],
)
def test_the_network_of_a_model_file(
    source: bytes, name: str, arguments: dict[str, Any], width: int
) -> None:
    network = network_of(load_model_file("net.py", source), name, arguments)
    assert network.get_parameter("layer.weight").shape == (width, 3, 1, 1)
    assert not network.training


@pytest.mark.parametrize(
    ("source", "name", "arguments", "text"),
    [
        (TWO, "", {}, r"net.py defines 2 modules \(Net, Other\); say which"),
        (b"x = 1", "", {}, r"defines 0 modules \(none\)"),
        (ONE, "Net2", {}, "defines no module Net2; it defines Net"),
        (ONE, "Net", {"depth": 3}, "Net cannot be built: .*depth"),
        (b"1 / 0", "", {}, "net.py cannot be run: ZeroDivisionError"),
        (b"def", "", {}, "net.py cannot be run: SyntaxError"),
        (b"import nowhere", "", {}, "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_what_is_wrong_with_it(
    source: bytes, name: str, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(DetectorError, match=text):
        network_of(load_model_file("net.py", source), name, arguments)


def test_the_same_bytes_run_once_and_others_cannot_take_their_names() -> None:
    source = (
        b"from torch import nn\n"
        b"from handlers.detectors.registry import ARCHITECTURES\n"
        b"@ARCHITECTURES.register('of_a_model_file')\n"
        b"def build(num_classes):\n    return nn.Linear(num_classes, 1)\n"
    )
    assert load_model_file("a.py", source) is load_model_file("b.py", source)
    model = build_model("of_a_model_file", 3)
    assert isinstance(model, nn.Linear)
    assert model.in_features == 3
    with pytest.raises(DetectorError, match="'of_a_model_file' is registered twice"):
        load_model_file("c.py", source + b"# changed\n")
    assert "of_a_model_file" in ARCHITECTURES.names()
