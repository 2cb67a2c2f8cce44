from __future__ import annotations

import pytest

from handlers.cam.registry import METHODS
from handlers.registry import Registry


def test_a_duplicate_is_refused() -> None:
    registry: Registry[int] = Registry("number", "handlers.cam")
    registry.register("one")(1)
    with pytest.raises(ValueError, match="number 'one' is registered twice"):
        registry.register("one")(2)
    assert registry.get("one") == 1
    assert registry.get("two") is None


def test_modules_of_the_package_register_themselves() -> None:
    assert METHODS.names() == [
        *("ablationcam", "dclose", "drise", "eigencam", "eigengradcam", "fullgrad", "gcame"),
        *("gradcam", "gradcam++", "guided", "guidedgradcam", "hirescam", "layercam", "odam"),
        *("scorecam", "ssgradcam", "ssgradcam++", "xgradcam"),
    ]
