"""Numbers on a command line: each function raises argparse.ArgumentTypeError for text that is no
number, or out of its range."""

from __future__ import annotations

import argparse
import math


def number(text: str, least: float, most: float) -> float:
    """From `least` to `most`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(
            f"expected a number from {least:g} to {most:g}, got {text}"
        )
    return value


def whole(text: str, least: int) -> int:
    """At least `least`."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text}")
    return value


def count(text: str) -> int:
    """At least 1."""
    return whole(text, 1)


def share(text: str) -> float:
    """From 0 to 1."""
    return number(text, 0, 1)


def part(text: str) -> float:
    """Above 0, at most 1."""
    value = share(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most 1, got {text}")
    return value


def seed(text: str) -> int:
    """A whole number from 0 to 2^63 - 1, which random generators take."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2^63 - 1, got {text}")
    return value
