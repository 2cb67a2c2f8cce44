"""The import rules of the house: data flows one way, and the archive stays light."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path.relative_to(ROOT)
    for top in ("handlers", "archives", "jobs")
    for path in (ROOT / top).rglob("*.py")
)
# What a serving machine has; boto3 and transformers only inside functions that are asked for them.
LIGHT = {"torch", "torchvision", "numpy", "PIL", "safetensors", "threadpoolctl", "handlers"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, by its dotted name."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: TorchServe loads handlers without relative imports"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def under(name: str, *places: str) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


FORBIDDEN = {
    "handlers": ("archives", "jobs"),
    "handlers/cam": ("handlers.detectors", "handlers.metrics", "handlers.explainer"),
    "handlers/detectors": ("handlers.cam", "handlers.metrics", "handlers.explainer"),
    "handlers/targets": ("handlers.cam", "handlers.detectors", "handlers.explainer"),
    "handlers/metrics": ("handlers.cam", "handlers.detectors", "handlers.explainer"),
    "archives": ("jobs", "handlers.cam", "ts"),
    "jobs": ("ts",),
}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_import_against_the_floors(path: Path) -> None:
    names = imports(path)
    for place, forbidden in FORBIDDEN.items():
        if path.is_relative_to(place):
            assert not [name for name in names if under(name, *forbidden)]
    if path.parts[0] == "handlers":
        tops = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
        allowed = LIGHT | {"ts"} if path.name == "explain_handler.py" else LIGHT
        assert tops <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_files_are_short(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) < 400


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text())
    assert ast.get_docstring(tree), "a module says what its subject is"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
