"""The guide's tables are those of the figures that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.demo.data import held_out
from jobs.evaluation.measure import GAUSSIAN, RANDOM
from tests.benchmarks import defaults

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(
    "table",
    [
        lambda figures: defaults.faithfulness_table(figures, ""),
        lambda figures: defaults.faithfulness_table(figures, "_score"),
        defaults.parts_table,
        defaults.controls_table,
    ],
)
def test_the_guide_has_what_was_measured(table: Any) -> None:
    figures = json.loads((DOCS / "methods" / defaults.RECORD).read_text())
    assert table(figures) in (DOCS / "methods.md").read_text()


def test_what_is_surely_better_is_bold() -> None:
    def less(deletion: list[float], insertion: list[float]) -> dict[str, list[float]]:
        return {"deletion": deletion, "insertion": insertion}

    own = {
        "boxes": 100,
        "deletion": [0.25, 0.1],
        "insertion": [0.75, 0.1],
        f"less {GAUSSIAN}": less([-0.03, 0.01], [-0.021, 0.01]),
        f"less {RANDOM}": less([0.02, 0.01], [0.5, 0.1]),
    }
    figures = {"a": {GAUSSIAN: own, RANDOM: own, defaults.FAITHFUL: own}}
    assert "**-.030 ± .010**; *-.021 ± .010*" in defaults.faithfulness_table(figures, "")
    assert "0.250; 0.750 | +.020 ± .010; **+.500 ± .100**" in defaults.controls_table(figures)


def test_pictures_are_those_that_training_never_draws(tmp_path: Path) -> None:
    defaults.main(["pictures", "--number", "2", "--first", "7", "--output", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["007.png", "008.png"]
    expected = [each.picture for each in held_out("scenes", 2, 7)]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "008.png")), expected[1])
