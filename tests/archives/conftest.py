from __future__ import annotations

from pathlib import Path

import pytest

from archives.building.build import BuildOptions, build
from archives.serving.server import Server

NAMES = ["disc", "ring", "star"]


@pytest.fixture(scope="session")
def categories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("categories") / "categories.txt"
    file.write_text("\n".join(NAMES) + "\n\n")
    return file


@pytest.fixture(scope="session")
def options(categories: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildOptions:
    return BuildOptions(
        detector="fasterrcnn_regnet_small_fpn",
        weights="random",
        name="small",
        version="1.2",
        export_path=tmp_path_factory.mktemp("store"),
        categories=categories,
    )


@pytest.fixture(scope="session")
def archive(options: BuildOptions) -> Path:
    return build(options)


@pytest.fixture(scope="session")
def server(endpoint: Server) -> Server:
    return endpoint
