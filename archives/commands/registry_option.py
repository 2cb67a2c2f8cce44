"""--registry, which several commands have."""

from __future__ import annotations

import argparse

REGISTRY_HELP = (
    "where NAME@ALIAS is looked up: s3://bucket/prefix or a folder, else WHYBOX_REGISTRY"
)


def add_registry(parser: argparse.ArgumentParser) -> None:
    """--registry; None where it is not given."""
    parser.add_argument("--registry", metavar="URI", help=REGISTRY_HELP)
