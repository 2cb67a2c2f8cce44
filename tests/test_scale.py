"""docs/scale.md: its tables are what the arithmetic prints, its inputs what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.inputs.plan import PIECE_ROWS
from jobs.lease import BEAT_SECONDS
from jobs.options import JobOptions
from tests.benchmarks.scale import Inputs, Night, Prices, main, tables

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/scale.md").read_text()


def test_the_pages_tables_are_those_that_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    printed = capsys.readouterr().out
    places = []
    for name, text in tables().items():
        assert f"\n{text}" in printed, name
        assert PAGE.count(f"\n{text}\n") == 1, f"python -m tests.benchmarks.scale: {name}"
        places.append(PAGE.index(text))
    assert places == sorted(places)


def test_inputs_are_what_the_code_does() -> None:
    assert Inputs.shard_size == JobOptions.shard_size
    assert Inputs.beat_seconds == BEAT_SECONDS
    assert Inputs.piece_rows == PIECE_ROWS


def test_a_small_night_by_hand() -> None:
    inputs = Inputs(
        pictures=1_000_000,
        hours=1,
        picture_bytes=50_000,
        pictures_per_second=100,
        heatmap_bytes=900,
        table_bytes=100,
        shard_bytes=1_000,
        shard_size=1_000,
    )
    night = Night(inputs, Prices(get=1e-3, put=1e-2, storage=0.1, gpu=3.6))
    assert (night.shards, night.gpus, night.pieces, night.beats) == (1_000, 3, 123, 667)
    assert night.bytes_in == 50e9
    assert night.bytes_out == 1_000_000 * 1_000 + 1_000 * 1_000
    assert night.gpu_cost == pytest.approx(10_000 * 3.6 / 3600)
    assert night.storage_cost == pytest.approx(1.001 * 0.1)
    gets, puts = 1_000_000 + 3_000 + 123 + 3 + 667, 4_000 + 123 + 667 + 1_000
    assert night.requests_cost(["GET"]) == pytest.approx(gets * 1e-6)
    assert night.requests_cost() == pytest.approx(gets * 1e-6 + puts * 1e-5)


def test_figures_may_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--pictures", "1000", "--pictures_per_second", "10", "--gpu", "36"])
    printed = capsys.readouterr().out
    assert "| 10 | 0.0 | 1 | $1.00 |" in printed  # 100 s of $36 an hour


@pytest.mark.parametrize("name", ["cluster", "containers"])
def test_every_file_is_named_on_the_page(name: str) -> None:
    for path in (ROOT / "docs" / name).iterdir():
        if not path.name.endswith(".dockerignore"):
            assert path.name in PAGE, path.name
